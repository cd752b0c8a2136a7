package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A reader that stops for a while finds every line that there was room for, in order, and where the
// others would be it reads how many they were. Whoever writes never waits.
func TestOutputStuckReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		o := newOutput(w, nil)
		s := &settings{}
		s.LogFormat, s.LogLevel = "json", slog.LevelInfo
		log := newLogger(o, s)

		log.Info("first")
		synctest.Wait() // it is on its way to a reader that does not read
		padding := strings.Repeat("x", 1000)
		const most = 3 * outputBytes / 1000
		for i := range most {
			log.Info("in the dark", "i", i, "padding", padding)
		}
		if o.lost() == 0 {
			t.Fatal("nothing was dropped, though nobody reads")
		}
		if kept := len(o.buf); kept > outputBytes {
			t.Errorf("%d bytes wait, more than %d", kept, outputBytes)
		}
		type line struct {
			Msg   string
			I     int
			Lines int
		}
		lines := make(chan line, 2*most)
		go func() {
			defer close(lines)
			for d := json.NewDecoder(r); ; {
				var l line
				if d.Decode(&l) != nil {
					return
				}
				lines <- l
			}
		}()
		synctest.Wait() // the reader has come back, and read all
		log.Info("last")
		o.end(time.Second)
		w.Close()
		synctest.Wait()

		if l := <-lines; l.Msg != "first" {
			t.Errorf("the first line is %q", l.Msg)
		}
		next, told := 0, 0
		for l := range lines {
			switch {
			case l.Msg == "in the dark" && told == 0 && l.I == next:
				next++
			case l.Lines > 0 && told == 0:
				told = l.Lines
			case l.Msg == "last" && told > 0:
			default:
				t.Fatalf("after %d lines and %d missing ones: %+v", next, told, l)
			}
		}
		if next == 0 || next+told != most || told != o.lost() {
			t.Errorf("%d lines were written: %d arrived, %d are told to be missing, "+
				"%d count as lost", most, next, told, o.lost())
		}
	})
}

// The end does not wait for a reader that has stopped, but for one that reads.
func TestOutputEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		defer r.Close()
		o := newOutput(w, nil)
		fmt.Fprintln(o, "unread")
		begun := time.Now()
		if o.end(time.Second); time.Since(begun) != time.Second {
			t.Errorf("the end of an output that nobody reads took %v", time.Since(begun))
		}
	})
	var slow strings.Builder
	o := newOutput(&slow, nil)
	for i := range 1000 {
		fmt.Fprintln(o, i)
	}
	o.end(time.Minute)
	if got := strings.Count(slow.String(), "\n"); got != 1000 {
		t.Errorf("%d of 1000 lines were written at the end", got)
	}
}

// failing is a writer whose disk is full for a while: it takes a part of the first piece and
// nothing of those that follow.
type failing struct {
	strings.Builder
	err    error
	first  int
	broken atomic.Bool
}

func (f *failing) Write(b []byte) (int, error) {
	if !f.broken.Load() {
		return f.Builder.Write(b)
	}
	n := min(f.first, len(b))
	f.first = 0
	f.Builder.Write(b[:n])
	return n, f.err
}

// Lines that can't be written are told as soon as others can, on a line of their own.
func TestOutputFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{err: syscall.ENOSPC, first: 7}
		gone := 0
		o := newOutput(f, func() { gone++ })
		for i, broken := range []bool{false, true, true, false} {
			f.broken.Store(broken)
			fmt.Fprintf(o, "line %d\nmore\n", i)
			synctest.Wait()
		}
		if o.end(time.Second); gone != 0 {
			t.Error("a disk that is full is taken for a reader that has gone")
		}
		const want = "line 0\nmore\nline 1\n(lines missing here, since nobody read them in time: " +
			"3)\nline 3\nmore\n"
		if got := f.String(); got != want {
			t.Errorf("written: %q\nwant:    %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := &failing{err: syscall.ENOSPC, first: 3}
		o := newOutput(f, nil)
		for _, broken := range []bool{true, false} {
			f.broken.Store(broken)
			fmt.Fprintln(o, "a line")
			synctest.Wait()
		}
		o.end(time.Second)
		const want = "a l\n(lines missing here, since nobody read them in time: 1)\na line\n"
		if got := f.String(); got != want {
			t.Errorf("after a cut: %q\nwant:       %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := &failing{err: fmt.Errorf("write: %w", syscall.EPIPE)}
		f.broken.Store(true)
		gone := 0
		o := newOutput(f, func() { gone++ })
		fmt.Fprintln(o, "a line")
		if o.end(time.Second); gone == 0 {
			t.Error("nobody was told that the reader has gone")
		}
	})
}
