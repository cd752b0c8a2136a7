package board

import (
	"net/http"
	"time"
)

// events sends a page all agents first and then what changes, until it leaves, stalls, or Run ends.
func (b *Board) events(w http.ResponseWriter, r *http.Request) {
	select {
	case <-b.ended:
		http.Error(w, "rollcall is stopping", http.StatusServiceUnavailable)
		return
	default:
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
	w.Header().Add("Vary", "Accept-Encoding")
	out := &pipe{w: w, zipped: acceptsGzip(r)}
	if out.zipped {
		w.Header().Set("Content-Encoding", "gzip")
	}
	if r.Method == http.MethodHead {
		return
	}
	stream := http.NewResponseController(w)
	send := func(what *piece) error {
		_ = stream.SetWriteDeadline(time.Now().Add(b.paces.stall)) // a test's writer has none
		if err := out.write(what); err != nil {
			return err
		}
		return stream.Flush()
	}
	sendBody := func(body []byte) error { return send(&piece{plain: body}) }
	defer out.end()
	h, leave, ok := b.enter()
	if !ok {
		_ = sendBody(message{Build: b.site.build, Full: b.cfg.MaxPages}.encode())
		return
	}
	defer leave()

	begun := false
	version := uint64(0) // that the page has
	for {
		h.mu.Lock()
		f, ready := h.last, h.ready
		var u update
		tooOld := !begun || f.from > version // for the frame alone
		if tooOld {
			u = h.updateSince(version)
		}
		h.mu.Unlock()
		var err error
		switch {
		case !begun && !ready:
			err = sendBody(message{Build: b.site.build, Trust: u.trust}.encode())
		case tooOld && !begun:
			err = u.encode(message{Build: b.site.build, Begin: true}, sendBody)
			begun, version = true, u.to
		case tooOld:
			err = u.encode(message{}, sendBody)
			version = u.to
		default:
			err = send(&f.piece)
			version = max(version, f.to)
		}
		if err != nil {
			return // the page has left
		}
		select {
		case <-f.next:
		case <-r.Context().Done():
			return
		case <-b.ended:
			return
		}
	}
}
