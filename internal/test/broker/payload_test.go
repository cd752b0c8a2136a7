package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// payload starts the server anew with another max_payload.
func (b *broker) payload(bytes int32) {
	b.t.Helper()
	b.stop()
	opts := b.opts
	b.opts = func() *server.Options {
		o := opts()
		o.MaxPayload = bytes
		return o
	}
	b.start()
}

// online is what the agent's state in the stream says; false, where there is none.
func (r *rig) onlineInStream(id int64) bool {
	m := r.stored(schemas.StateSubject(r.sim.TenantID(), id))
	return m != nil && strings.Contains(string(m.Data), `"online":true`)
}

// A server that comes back and takes smaller messages than one agent needs: that agent waits, and
// nobody else; when it takes larger ones again, so does the agent wait no more.
func TestPayloadLowered(t *testing.T) {
	t.Parallel()
	const low = 64 << 10
	for _, c := range []struct {
		name string
		then func(r *rig, p *process, flip func()) // brings the server with the low limit
	}{
		{"while nothing is under way", func(r *rig, p *process, flip func()) {
			r.b.payload(low)
			flip()
		}},
		{"while a commit that needs more is on its way", func(r *rig, p *process, flip func()) {
			swallowed := p.proxy.on(&rule{match: commitMessage, act: swallow})
			flip()
			<-swallowed.fired
			r.b.payload(low)
		}},
		{"while it waits for the broker", func(r *rig, p *process, flip func()) {
			p.proxy.cut()
			flip()
			p.sees()
			r.b.payload(low)
			p.proxy.mend()
		}},
		{"while nobody runs", func(r *rig, p *process, flip func()) {
			if err := p.stop(); err != nil {
				r.t.Fatal(err)
			}
			flip()
			r.b.payload(low)
			r.start()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			r.opt.LossyLive, r.opt.MaxRowBytes = true, low/3-8<<10
			large, others := r.agents[3], r.agents[5:5+flippers]
			r.change(func(s *isdpsim.Tenant) {
				s.Edit(large, isdpsim.Fields{"note": `"` + strings.Repeat("n", 100<<10) + `"`})
			})
			p := r.start()
			r.settle(p)
			was := r.onlineInStream(large)

			c.then(r, p, func() { r.flip(append(others, large)...) })
			p = r.procs[len(r.procs)-1]
			r.settle(p) // which may still count what was seen before
			r.settle(p)
			if w, _ := r.watermark(); w.Rejected != 1 {
				t.Errorf("%d records are rejected, want the large one", w.Rejected)
			}
			for _, id := range others {
				if r.onlineInStream(id) == r.online[id] {
					t.Errorf("agent %d waits for the large one", id)
				}
			}
			if r.onlineInStream(large) != was {
				t.Error("the large one was published")
			}

			r.b.payload(1 << 20)
			// a sweep that may have begun without a connection; the next one knows the new limit
			r.settle(p)
			r.settle(p)
			if w, _ := r.watermark(); w.Rejected != 0 || r.onlineInStream(large) == was {
				t.Errorf("%d records are rejected when there is room for all", w.Rejected)
			}
			r.finish(p)
		})
	}
}

// A server that takes next to nothing is refused by its figure, and by that which is needed; also
// where it comes with a reconnect.
func TestPayloadTooSmall(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, 30, 886)
	r.opt.LossyLive = true
	p := r.start()
	r.settle(p)
	r.b.payload(8 << 10)
	p.refuses("8192 bytes", fmt.Sprint(publisher.MinPayload), "max_payload")
	p = r.start()
	p.refuses("8192 bytes")
	r.b.payload(publisher.MinPayload)
	r.finish(r.start())
}
