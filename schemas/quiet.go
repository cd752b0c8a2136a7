package schemas

import "slices"

// Quiet lists the fields whose change alone makes no event. Such a change is still carried, and
// listed when another field changes. "*" stands for every field that the vendor does not document
// (see [Listed]). Nil means [DefaultQuiet]; an empty list has no quiet field.
type Quiet []string

// DefaultQuiet is the list that rollcall uses unless it is told another.
var DefaultQuiet = Quiet{
	"lastUpdateTimestamp", "lastUpdateDate", "lastUpdatedBy", "lastUpdateName",
	"agentSignInTime", "agentSignInDate", "*",
}

// Has reports whether a change of the field alone makes no event.
func (q Quiet) Has(field string) bool {
	if q == nil {
		q = DefaultQuiet
	}
	return slices.Contains(q, field) || !Listed(field) && slices.Contains(q, "*")
}

// Significant returns the changes of fields that are not quiet, in their order.
func (q Quiet) Significant(changes []Change) []Change {
	var significant []Change
	for _, c := range changes {
		if !q.Has(c.Field) {
			significant = append(significant, c)
		}
	}
	return significant
}
