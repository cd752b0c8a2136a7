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
	if r.Method == http.MethodHead {
		return
	}
	stream := http.NewResponseController(w)
	send := func(body []byte) error {
		_ = stream.SetWriteDeadline(time.Now().Add(b.paces.stall)) // a test's writer has none
		if _, err := w.Write(body); err != nil {
			return err
		}
		return stream.Flush()
	}
	h, leave, ok := b.enter()
	if !ok {
		// An EventSource can't tell its page what the status of an answer was, nor read its body.
		_ = send(message{Full: b.cfg.MaxPages}.encode())
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
			err = send(message{Trust: u.trust}.encode())
		case tooOld:
			err = u.encode(!begun, send)
			begun, version = true, u.to
		default:
			err = send(f.body)
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
