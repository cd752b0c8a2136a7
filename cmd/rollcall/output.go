package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"
)

// outputBytes is how much an output keeps for a reader that is slow.
const outputBytes = 256 << 10

// An output takes lines for a reader that may be slow, have stopped reading, or have gone away, and
// never makes the writer wait. Lines that find no room, or can't be written, are dropped and
// counted; a mark says how many, where they would be, as soon as it is read again. Its methods
// may be called from any goroutine.
type output struct {
	w    io.Writer
	gone func() // called when nobody can read any more; nil: nobody wants to know

	mu      sync.Mutex
	changed sync.Cond              // signalled when there is something to write, and at the end
	buf     []byte                 // what waits
	missing int                    // lines that were dropped behind buf
	dropped int                    // lines that were ever dropped
	mark    func(lines int) []byte // what stands in the place of lines that are missing
	ended   bool

	done chan struct{} // closed when everything is written after the end
}

// newOutput returns an output to w. What is missing is marked in plain words, until markWith says
// otherwise.
func newOutput(w io.Writer, gone func()) *output {
	o := &output{w: w, gone: gone, done: make(chan struct{}), mark: func(lines int) []byte {
		return fmt.Appendf(nil, "(lines missing here, since nobody read them in time: %d)\n", lines)
	}}
	o.changed.L = &o.mu
	go o.run()
	return o
}

// markWith sets how lines that are missing are marked.
func (o *output) markWith(mark func(lines int) []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mark = mark
}

// Write implements io.Writer for whole lines. It takes all of b or drops all of it; it returns at
// once, and no error.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Where lines are missing, nothing follows until their place is marked.
	if o.missing > 0 || len(o.buf)+len(b) > outputBytes || o.ended {
		o.missing += lines(b)
		o.dropped += lines(b)
		return len(b), nil
	}
	o.buf = append(o.buf, b...)
	o.changed.Signal()
	return len(b), nil
}

func lines(b []byte) int { return max(bytes.Count(b, []byte("\n")), 1) }

// lost is how many lines were dropped so far.
func (o *output) lost() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

// end has what waits written, and returns when that is done, after patience at the latest. Nothing
// is taken any more.
func (o *output) end(patience time.Duration) {
	o.mu.Lock()
	o.ended = true
	o.changed.Signal()
	o.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
	}
}

// run writes what waits, as one piece, until the end.
func (o *output) run() {
	defer close(o.done)
	var chunk []byte
	// Lines that could not be written, and are not marked yet; a part of the last one was.
	failed, cut := 0, false
	for {
		o.mu.Lock()
		for len(o.buf) == 0 && !o.ended {
			o.changed.Wait()
		}
		if len(o.buf) == 0 {
			o.mu.Unlock()
			return
		}
		chunk, o.buf = o.buf, chunk[:0]
		missing, mark := o.missing, o.mark
		o.missing = 0
		o.mu.Unlock()

		piece, before := chunk, 0 // bytes of it that come before the chunk
		if cut || failed > 0 || missing > 0 {
			piece = nil
			if cut {
				piece = append(piece, '\n')
			}
			if failed > 0 {
				piece = append(piece, mark(failed)...)
			}
			before = len(piece)
			piece = append(piece, chunk...)
			if missing > 0 {
				piece = append(piece, mark(missing)...)
			}
		}
		n, err := o.w.Write(piece)
		if err == nil {
			failed, cut = 0, false
			continue
		}
		if n > 0 {
			cut = piece[n-1] != '\n'
		}
		if n >= before {
			failed = 0
		}
		unwritten := 0
		if from := max(n-before, 0); from < len(chunk) {
			unwritten = lines(chunk[from:])
		}
		failed += unwritten + missing
		o.mu.Lock()
		o.dropped += unwritten
		o.mu.Unlock()
		if o.gone != nil && errors.Is(err, syscall.EPIPE) {
			o.gone()
		}
	}
}
