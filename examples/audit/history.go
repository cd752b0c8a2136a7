package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/gofrs/flock"

	"github.com/rollcall-events/rollcall/schemas"
)

// A record is one line of the file.
type record struct {
	Seq uint64 `json:"seq"` // in the stream
	// Missing is how many of the agent's events before this one are missing.
	Missing uint64 `json:"missing,omitempty"`
	// Anew: the stream was lost, and the agent's revisions start again.
	Anew bool `json:"anew,omitempty"`
	// Event is as it came, unknown fields included.
	Event json.RawMessage `json:"event,omitempty"`
	// Unreadable is a message that is no event, or one of a later major version.
	Unreadable string `json:"unreadable,omitempty"`
}

// A history is a file of records, and what it takes to tell which events are new.
type history struct {
	file *os.File
	lock *flock.Flock
	last map[agent]position
	tail record // the last line
}

type agent struct{ tenant, id int64 }

// A position is the last event of an agent in the file. Per agent, times never go back; nor do
// revisions, in one stream.
type position struct {
	revision uint64
	time     time.Time
}

// openHistory reads the file, or creates it, and cuts off a line that a crash left unfinished.
func openHistory(name string) (*history, error) {
	h := &history{lock: flock.New(name + ".lock"), last: map[agent]position{}}
	locked, err := h.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if !locked {
		return nil, fmt.Errorf("%s is being written by another process", name)
	}
	if err := h.open(name); err != nil {
		h.close()
		return nil, fmt.Errorf("go on with %s: %w", name, err)
	}
	return h, nil
}

func (h *history) open(name string) (err error) {
	if h.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	whole, err := h.read()
	if err != nil {
		return err
	}
	if err := h.file.Truncate(whole); err != nil {
		return err
	}
	_, err = h.file.Seek(whole, io.SeekStart)
	return err
}

// read reads the file, and returns where the last whole line ends.
func (h *history) read() (whole int64, err error) {
	lines := bufio.NewReader(h.file)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return 0, err
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return 0, fmt.Errorf("line %d: %w", n, err)
		}
		if r.Event != nil {
			var e schemas.Event
			if err := json.Unmarshal(r.Event, &e); err != nil {
				return 0, fmt.Errorf("line %d: %w", n, err)
			}
			h.remember(&e)
		}
		h.tail = r
		whole += int64(len(line))
	}
}

func (h *history) remember(e *schemas.Event) {
	h.last[agent{e.Data.Agent.TenantID, e.Data.Agent.AgentID}] = position{e.Data.Revision, e.Time}
}

// add appends a message, unless the file has it. When it returns nil, the message is on the disk.
func (h *history) add(seq uint64, data []byte) error {
	r := record{Seq: seq}
	var e schemas.Event
	if err := json.Unmarshal(data, &e); err != nil {
		if h.tail.Seq == seq && h.tail.Event == nil {
			return nil
		}
		r.Unreadable = string(data)
		log.Printf("message %d can't be read as an event: %v", seq, err)
		return h.append(r)
	}
	r.Event = data
	id := e.Data.Agent.AgentID
	last, known := h.last[agent{e.Data.Agent.TenantID, id}]
	switch revision := e.Data.Revision; {
	case revision > last.revision: // 0 for an unknown agent
		r.Missing = revision - last.revision - 1
	case known && e.Time.After(last.time):
		r.Anew = true
	default:
		return nil
	}
	if r.Missing > 0 {
		log.Printf("%d events of agent %d before its revision %d are missing: "+
			"they expired before they were read, or the broker lost them",
			r.Missing, id, e.Data.Revision)
	}
	if r.Anew {
		log.Printf("the revisions of agent %d start again at %d: the stream was lost",
			id, e.Data.Revision)
	}
	if err := h.append(r); err != nil {
		return err
	}
	h.remember(&e)
	return nil
}

func (h *history) append(r record) error {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line) // ends the line, and takes white space out of it
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("encode message %d: %w", r.Seq, err)
	}
	if _, err := h.file.Write(line.Bytes()); err != nil {
		return fmt.Errorf("append to the file: %w", err)
	}
	if err := h.file.Sync(); err != nil {
		return fmt.Errorf("sync the file: %w", err)
	}
	h.tail = r
	return nil
}

func (h *history) close() {
	if h.file != nil {
		_ = h.file.Close() // all of it is synced
	}
	_ = h.lock.Unlock()
}
