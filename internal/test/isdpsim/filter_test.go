package isdpsim

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// The faults of the filter by who is online leave the whole listing as it is.
func TestFilterFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		fault Fault
		want  func(ids []int64) (online []int64) // of agents 0, who is online, and 1, who was
		stale bool                               // 1's row says that it is online
	}{
		"none":        {nil, func(ids []int64) []int64 { return ids[:1] }, false},
		"ignored":     {IgnoreFilter(), func(ids []int64) []int64 { return ids }, false},
		"lags":        {FilterLags(5*time.Second, false), justOne, true},
		"lags, fresh": {FilterLags(5*time.Second, true), justOne, false},
		"lags, not so much": {FilterLags(time.Second, true),
			func(ids []int64) []int64 { return ids[:1] }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tenant := New(Config{Agents: 4})
				ids := tenant.IDs()
				for i, id := range ids {
					tenant.SetOnline(id, i == 1)
				}
				time.Sleep(10 * time.Second)
				tenant.SetOnline(ids[0], true)
				tenant.SetOnline(ids[1], false)
				time.Sleep(2 * time.Second)
				tenant.SetFault(OnFilter(tc.fault))
				for _, online := range []int{-1, 1} {
					plan := &Plan{Request: Request{Endpoint: AgentsEndpoint, Online: online,
						PageSize: 50, Type: -1}}
					if f := tenant.hook(plan.Request); f != nil {
						f(plan)
					}
					for _, do := range plan.Meanwhile {
						do(tenant)
					}
					_, page := tenant.page(plan.query(), plan)
					want := ids
					if online == 1 {
						want = tc.want(ids)
					}
					var got []int64
					stale := false
					for _, r := range page.Rows {
						got = append(got, r.ID)
						stale = stale || r.ID == ids[1] && is(r, "onlineStatus", "1")
					}
					if !slices.Equal(got, want) || page.Total != len(want) ||
						stale != (tc.stale && online == 1) {
						t.Errorf("filter %d: %v of %d, stale %t, want %v", online, got, page.Total,
							stale, want)
					}
				}
			})
		})
	}
}

func justOne(ids []int64) []int64 { return ids[1:2] }

func is(r Row, field, value string) bool {
	row, err := Patch(r.JSON, Fields{field: value})
	return err == nil && string(row) == string(r.JSON)
}
