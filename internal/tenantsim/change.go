package tenantsim

import (
	"encoding/json"
	"time"
)

// Kind says what kind of a change one was. It is a label for readers: Before and After say what
// there was to see.
type Kind string

const (
	Started   Kind = "started"   // there from the beginning
	Added     Kind = "added"     // new in the listing
	SignedIn  Kind = "signedIn"  // onlineStatus 1
	SignedOut Kind = "signedOut" // onlineStatus 0
	Edited    Kind = "edited"    // some fields
	Replaced  Kind = "replaced"  // the whole row
	Removed   Kind = "removed"   // gone from the listing
	Restored  Kind = "restored"  // back in the listing
	Deleted   Kind = "deleted"   // deleteFlag 1
	Undeleted Kind = "undeleted" // deleteFlag 0
)

// Change is one change of the listing, at one instant. Applied in order to an empty set, each
// putting After in the place of Before, all changes give the listing.
type Change struct {
	Seq    int       // how many there were before it
	Time   time.Time // by the tenant's clock
	ID     int64
	Kind   Kind
	Before json.RawMessage // the row as it was listed; nil: it was not
	After  json.RawMessage // the row as it is listed; nil: it is not
}
