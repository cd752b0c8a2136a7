package checker

import (
	"strconv"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

// Stream is what is known of the stream. It may hold other tenants' messages, which are left aside.
type Stream struct {
	// Stored is what the stream holds, by sequence: see Read. Read it when nothing is being written
	// any more.
	Stored []Message

	// Live is what was republished since the stream was made, in the order of its arrival: see
	// Record. Empty: not recorded.
	Live []Message

	// ReadAt is when Stored was read: events whose TTL was over by then may be missing from it.
	// Zero: none is.
	ReadAt time.Time
}

// Truth is what the simulated tenant did and showed. Nothing in it is altered.
type Truth struct {
	History []isdpsim.Change     // every change
	Pages   []isdpsim.PageAnswer // every answer
}

// TruthOf takes the record of a tenant.
func TruthOf(t *isdpsim.Tenant) Truth { return Truth{History: t.History(), Pages: t.Pages()} }

// Interval is a stretch of time.
type Interval struct{ From, To time.Time }

// Rollback says whether the broker lost messages that it had acknowledged.
type Rollback int

const (
	// NoRollback: it did not. Whatever went missing is a breach.
	NoRollback Rollback = iota

	// Remembered: it did, while the process lived that had written them. Revisions may have gaps,
	// but no id is used twice.
	Remembered

	// Forgotten: it did, and whoever wrote next did not know what had been lost. Ids may be used
	// again.
	Forgotten
)

// Options says what was set up and what was done to rollcall, the broker and the vendor. The zero
// value, with a Tenant, is the strictest: no fault but those of the vendor that its record shows.
type Options struct {
	Tenant int64 // whose stream; required

	// Settings of rollcall, as it was run.
	Quiet       []string // fields whose change alone makes no event; nil: the contract's list
	MaxMissing  float64  // the share of a listing that may go missing together; 0: not checked
	MissingHold time.Duration
	Interval    time.Duration // from sweep to sweep; 0: not known
	RemoveAfter int           // complete sweeps that must miss an agent; 0: 2
	Types       []int         // business types polled; empty: all in one listing
	OtherTypes  bool          // other types than Types were polled at times
	MaxPayload  int           // the largest message that the server takes; 0: 1 MiB
	// rows at least nine tenths as long may have been rejected; 0: 256 KiB
	MaxRowBytes int

	// Bound is how long a state must last, outages not counted, to be certain to be in the stream
	// with a time within it: a few sweeps and the longest answer. 0: not checked.
	Bound time.Duration

	// RemovalBound is the same for an agent's absence from the listing, which takes RemoveAfter
	// whole sweeps. 0: as Bound; below 0: not checked (the guard holds removals back).
	RemovalBound time.Duration

	// Outages is when nobody could sweep: rollcall dead or without the lease, the vendor down or
	// lying, or the broker away so long that detail was folded. It may overlap and be in any order.
	Outages []Interval

	// Until is how long rollcall was there to see changes. Zero: until the last complete sweep that
	// the stream knows of.
	Until time.Time

	// Quiescent says that the tenant had come to rest and rollcall had seen it: states equal the
	// truth, health is ok.
	Quiescent bool

	// Skew is by how much the clocks of rollcall's replicas and of the tenant may differ, besides
	// the millisecond to which times are rounded.
	Skew time.Duration

	Rollback Rollback // what the broker forgot

	// Torn says that the store ran full, so that commits may be torn, or that states were damaged:
	// commits may lack messages and may bring states without events.
	Torn bool

	// Folded says that the buffer's limit was passed: since may lie between two events.
	Folded bool

	// Expired says that events have left the stream by their age: an agent's first known revision
	// may be above 1.
	Expired bool

	// LossyLive says that the recording has holes, as after reconnects. Without it every commit
	// must be known whole where Live is given.
	LossyLive bool

	// BrokenPages lets rows of answers that did not arrive in good order count as shown: for
	// isdpsim.Huge, whose answer a patient reader can use.
	BrokenPages bool

	// Foreign names messages that a test wrote itself, to be left aside. Nil: none.
	Foreign func(Message) bool

	MaxViolations int // to be reported; the rest is counted. 0: 50
}

// slack is by how much a time may be off: a millisecond for rounding, and the skew.
func (o *Options) slack() time.Duration { return time.Millisecond + o.Skew }

// cut reports whether commits may have lost some of their messages.
func (o *Options) cut() bool { return o.Torn || o.Rollback != NoRollback }

func (o Options) withDefaults() Options {
	if o.Quiet == nil {
		o.Quiet = []string{"lastUpdateTimestamp", "lastUpdateDate", "lastUpdatedBy",
			"lastUpdateName", "agentSignInTime",
			"agentSignInDate", "*"}
	}
	if o.RemoveAfter == 0 {
		o.RemoveAfter = 2
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = 1 << 20
	}
	if o.MaxRowBytes == 0 {
		o.MaxRowBytes = 256 << 10
	}
	if o.RemovalBound == 0 {
		o.RemovalBound = o.Bound
	}
	if o.MaxViolations == 0 {
		o.MaxViolations = 50
	}
	return o
}

// types are the types polled, as watermarks write them.
func (o *Options) types() (out []string) {
	for _, t := range o.Types {
		out = append(out, strconv.Itoa(t))
	}
	return out
}
