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
		_ = stream.SetWriteDeadline(time.Now().Add(b.paces.stall)) // the same
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
	at := uint64(0) // the version that the page has
	for {
		h.mu.Lock()
		f, ready := h.last, h.ready
		var missing *lack
		if !begun || f.from > at {
			l := h.lack(at)
			missing = &l
		}
		h.mu.Unlock()
		var err error
		switch {
		case !begun && !ready:
			err = send(message{Trust: missing.trust}.encode())
		case missing != nil:
			err = missing.encode(!begun, send)
			begun, at = true, missing.to
		default:
			err = send(f.body)
			at = max(at, f.to)
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
