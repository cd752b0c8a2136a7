//go:build unix

package permissions

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// No server starts without every variable that its file names, or with an empty key.
func TestVariables(t *testing.T) {
	t.Parallel()
	ca := natstest.NewAuthority(t)
	tls := map[string]string{}
	tls["NATS_TLS_CERT"], tls["NATS_TLS_KEY"] = ca.Issue("server")
	mutual := maps.Clone(tls)
	mutual["NATS_TLS_CA"] = ca.File
	cluster := map[string]string{
		"NATS_SERVER_NAME": "nats-1", "NATS_LISTEN": "127.0.0.1:4222",
		"NATS_CLUSTER_LISTEN": "127.0.0.1:6222", "NATS_CLUSTER_PASSWORD": "secret",
		"NATS_ROUTES": "[nats://127.0.0.1:6222]",
	}
	for file, more := range map[string]map[string]string{"server.conf": nil, "server-tls.conf": tls,
		"server-mtls.conf": mutual, "cluster.conf": cluster} {
		vars := newUsers(t).variables(t)
		maps.Copy(vars, more)
		path := filepath.Join(deployed, file)
		opts, err := options(path, vars)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if host := opts.Host; host != "127.0.0.1" {
			t.Errorf("%s listens on %s", file, host)
		}
		for name := range vars {
			without := maps.Clone(vars)
			delete(without, name)
			if _, err := options(path, without); err == nil ||
				!strings.Contains(err.Error(), name) {
				t.Errorf("%s without %s: %v", file, name, err)
			}
			if !strings.Contains(name, "NKEY") {
				continue
			}
			without[name] = ""
			if _, err := options(path, without); err == nil {
				t.Errorf("%s is read with an empty %s", file, name)
			}
		}
	}
}

// The streams in the files are those that rollcall itself would create.
func TestStreamsAreRollcalls(t *testing.T) {
	t.Parallel()
	configs := map[bool]map[string]string{}
	for _, manage := range []bool{true, false} {
		u := newUsers(t)
		n := start(t, filepath.Join(deployed, "server.conf"), u.variables(t))
		operator := n.connect(u.operator.opt)
		if !manage {
			add(t, operator, "agent-events.json", 1)
			add(t, operator, "kv-rollcall.json", 1)
			add(t, operator, "rollcall-alarm.json", 1)
		}
		cfg := publisher.Config{
			Tenant: 886, Instance: "a", Replicas: 1, Manage: manage, EventsMaxAge: time.Hour,
			MaxBytes: 1 << 30, LeaseTTL: 2 * time.Second,
		}
		nc := n.connect(u.rollcall.opt)
		if _, err := publisher.Open(t.Context(), nc, cfg); err != nil {
			t.Fatal(err)
		}
		alarm, err := publisher.NewAlarm(nc, cfg)
		if err != nil {
			t.Fatal(err)
		}
		go alarm.Run(t.Context())
		alarm.PutOff(schemas.Watermark{NextBy: time.Now().Add(time.Hour)})
		wait.Eventually(t, "the alarm to be armed", func() bool {
			s, err := stream(t, operator, "").Stream(t.Context(), schemas.AlarmStream)
			return err == nil && s.CachedInfo().State.Msgs == 1
		})
		configs[manage] = map[string]string{}
		for info := range stream(t, operator, "").ListStreams(t.Context()).Info() {
			c := info.Config
			maps.DeleteFunc(c.Metadata, func(k, _ string) bool { // the server's own
				return strings.HasPrefix(k, "_nats.")
			})
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			configs[manage][c.Name] = string(b)
		}
	}
	if len(configs[true]) != 3 || !maps.Equal(configs[true], configs[false]) {
		t.Errorf("rollcall creates\n%v\nand the files\n%v", configs[true], configs[false])
	}
}

// Three servers with cluster.conf are one cluster, on which rollcall and readers work.
func TestCluster(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	var nodes []*node
	var routes []string
	for range 3 {
		routes = append(routes, fmt.Sprintf("nats://route:a-s3cret@127.0.0.1:%d", e2e.FreePort(t)))
	}
	for i, route := range routes {
		vars := u.variables(t)
		maps.Copy(vars, map[string]string{
			"NATS_SERVER_NAME": fmt.Sprintf("nats-%d", i+1), "NATS_LISTEN": "127.0.0.1:4222",
			"NATS_CLUSTER_LISTEN":   route[strings.Index(route, "@")+1:],
			"NATS_CLUSTER_PASSWORD": "a-s3cret",
			"NATS_ROUTES":           "[" + strings.Join(routes, ", ") + "]",
		})
		nodes = append(nodes, start(t, filepath.Join(deployed, "cluster.conf"), vars))
	}
	urls := strings.Join([]string{nodes[0].url, nodes[1].url, nodes[2].url}, ",")
	wait.Eventually(t, "a leader of the cluster", func() bool {
		return slices.ContainsFunc(nodes, func(n *node) bool {
			return n.JetStreamIsLeader() && len(n.JetStreamClusterPeers()) == 3
		})
	})
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 5})
	operator := nodes[0].connect(u.operator.opt)
	works(t, v, operator, map[string]string{"ROLLCALL_NATS_URL": urls,
		"ROLLCALL_NATS_NKEY_FILE": u.rollcall.seedFile, "ROLLCALL_NATS_REPLICAS": "3"})
	add(t, nodes[1].connect(u.copyOperator.opt), "agent-events-copy.json", 3)
	reader := nodes[2].connect(u.reader.opt)
	wait.Eventually(t, "the copy", func() bool {
		return last(stream(t, reader, "")) > 0 &&
			last(stream(t, reader, "")) == last(stream(t, operator, ""))
	})
	for _, nc := range []*nats.Conn{operator, reader} {
		s, err := stream(t, nc, "").Stream(t.Context(), e2e.Stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().Config.Replicas; n != 3 {
			t.Errorf("%d replicas", n)
		}
	}
	if got := len(e2e.Roster(t, reader, 886)); got != 5 {
		t.Errorf("a reader sees %d states, want 5", got)
	}
	// What can't be done on one server can't be done on three.
	all := victims(t, map[string]*nats.Conn{"its own account": nodes[0].connect(u.reader.opt),
		"the stream's account": nodes[1].connect(u.operator.opt)})
	forger{t, reader}.pushes(targets[0])
	forger{t, reader}.replies()
	time.Sleep(300 * time.Millisecond) // for what should not come
	for _, line := range seen(all) {
		t.Error("forged, seen in " + line)
	}
	// A reader sees the stream go on when a server goes.
	nodes[0].stop()
	js := stream(t, reader, "")
	wait.Eventually(t, "an ordered consumer on the two that are left", func() bool {
		c, err := js.OrderedConsumer(t.Context(), e2e.Stream,
			jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
				FilterSubjects: []string{"agent.state.886.*"}})
		return err == nil && c.CachedInfo().NumPending == 5
	})
	for _, n := range nodes {
		for _, line := range n.log.violations() {
			if !strings.Contains(line, u.reader.public) { // the forger's
				t.Error(line)
			}
		}
	}
}
