package schemas

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Why a row can't be used.
const (
	RejectSyntax = "syntax"       // not a JSON object
	RejectID     = "agentId"      // no usable agentId
	RejectStatus = "onlineStatus" // no usable onlineStatus
	RejectTenant = "tenant"       // of another tenant than the token's
	RejectSize   = "size"         // too large to publish
)

// RowError says why a row is rejected. Its text never repeats the row.
type RowError struct {
	Reason  string // one of the Reject constants
	AgentID int64  // whose row it is, where HasID
	HasID   bool
}

func (e *RowError) Error() string {
	switch e.Reason {
	case RejectSyntax:
		return "not a JSON object"
	case RejectTenant:
		return fmt.Sprintf("agent %d belongs to another tenant than the token", e.AgentID)
	case RejectSize:
		return fmt.Sprintf("agent %d is too large to publish", e.AgentID)
	case RejectID:
		return "no usable agentId"
	default:
		return fmt.Sprintf("agent %d has no usable %s", e.AgentID, e.Reason)
	}
}

// DecodeAgent decodes one row of findOnlineAgent. A number where a string is documented, and the other way round, is
// normalised; a null is the same as an absent field; fields that no table lists are kept as they are. An absent tenantId means
// the given tenant; tenant 0 stands for any.
//
// dropped counts the listed fields whose value could not be normalised: they are left out. An error is always a *[RowError]:
// the row has no usable agentId or onlineStatus, or is of another tenant.
func DecodeAgent(row []byte, tenant int64) (a Agent, dropped int, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(row, &fields); err != nil || fields == nil {
		return Agent{}, 0, &RowError{Reason: RejectSyntax}
	}
	id, ok := integer(fields["agentId"])
	if !ok {
		return Agent{}, 0, &RowError{Reason: RejectID}
	}
	a.TenantID = tenant
	status := false
	for name, raw := range fields {
		f, listed := listedByName[name]
		switch {
		case !listed:
			a.Other = append(a.Other, Field{name, raw})
		case isNull(raw):
		case setListed(f, &a, raw):
			status = status || name == "onlineStatus"
		default:
			dropped++
		}
	}
	slices.SortFunc(a.Other, func(x, y Field) int { return cmp.Compare(x.Name, y.Name) })
	switch {
	case tenant != 0 && a.TenantID != tenant:
		return Agent{}, 0, &RowError{Reason: RejectTenant, AgentID: id, HasID: true}
	case !status:
		return Agent{}, 0, &RowError{Reason: RejectStatus, AgentID: id, HasID: true}
	}
	return a, dropped, nil
}

// setListed stores raw, normalised, as the field's value; nil makes it absent. It reports whether it could.
func setListed(f listedField, a *Agent, raw json.RawMessage) bool {
	switch p := f.at(a).(type) {
	case *int64:
		v, ok := integer(raw)
		if ok {
			*p = v
		}
		return ok
	case **int64:
		if raw == nil {
			*p = nil
			return true
		}
		v, ok := integer(raw)
		if ok {
			*p = &v
		}
		return ok
	case **string:
		if raw == nil {
			*p = nil
			return true
		}
		v, ok := text(raw, f.date)
		if ok {
			*p = &v
		}
		return ok
	}
	return false
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(raw, []byte("null")) }

// integer normalises a number, or a string that holds one, to 64 bits. A fraction of zero (1.0, 1e3) is accepted as long as
// the value is exact.
func integer(raw json.RawMessage) (int64, bool) {
	if len(raw) == 0 {
		return 0, false
	}
	s := string(raw)
	switch c := raw[0]; {
	case c == '"':
		if json.Unmarshal(raw, &s) != nil {
			return 0, false
		}
		s = strings.TrimSpace(s)
	case c != '-' && (c < '0' || c > '9'):
		return 0, false
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return v, true
	}
	return integral(s)
}

// integral reads a decimal number with a fraction or an exponent whose value is an integer of 64 bits. It goes by the digits:
// a float64 would round some fractions away, and large integers too. The exponent's size costs nothing.
func integral(s string) (int64, bool) {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	exponent := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		var err error
		if exponent, err = strconv.Atoi(s[i+1:]); err != nil {
			return 0, false
		}
		s = s[:i]
	}
	whole, fraction, _ := strings.Cut(s, ".")
	if whole+fraction == "" {
		return 0, false
	}
	// The value is significant × 10^exponent, and significant ends in no zero: an integer, unless the exponent is negative.
	digits := strings.TrimLeft(whole+fraction, "0")
	significant := strings.TrimRight(digits, "0")
	exponent += len(digits) - len(significant) - len(fraction)
	switch {
	case significant == "":
		return 0, true
	case exponent < 0 || exponent > 18:
		return 0, false
	}
	v, err := strconv.ParseInt(sign+significant+strings.Repeat("0", exponent), 10, 64)
	return v, err == nil
}

// The vendor's form of a date.
const vendorDate = "2006-01-02T15:04:05.000-07:00"

// text normalises a string, or a number by its own digits. A number in a date field is milliseconds since 1970, as in the
// timestamp fields beside it.
func text(raw json.RawMessage, date bool) (string, bool) {
	if len(raw) == 0 {
		return "", false
	}
	switch c := raw[0]; {
	case c == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err == nil
	case c != '-' && (c < '0' || c > '9'):
		return "", false
	case !date:
		return string(raw), true
	}
	ms, ok := integer(raw)
	if !ok {
		return "", false
	}
	t := time.UnixMilli(ms).UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return "", false
	}
	return t.Format(vendorDate), true
}
