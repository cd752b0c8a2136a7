package deploycheck

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	nack "github.com/nats-io/nack/pkg/jetstream/apis/jetstream/v1beta2"
	"sigs.k8s.io/yaml"
)

// unset are settings of a stream that mean the same as none.
var unset = []any{nil, "", 0.0, -1.0, false}

// TestNACK sees whether NACK's resources are the streams and the bucket of deploy/nats, with an
// account each that there is. Replicas aside: these are for three servers.
func TestNACK(t *testing.T) {
	accounts, streams := map[string]nack.AccountSpec{}, map[string]nack.StreamSpec{}
	var bucket *nack.KeyValueSpec
	for _, manifest := range strings.Split(read(t, manifests+"/nack/streams.yaml"), "\n---\n") {
		switch o := decode(t, "nack/streams.yaml", manifest).(type) {
		case *nack.Account:
			accounts[o.Name] = o.Spec
		case *nack.Stream:
			streams[o.Name] = o.Spec
		case *nack.KeyValue:
			bucket = &o.Spec
		}
	}
	used := func(name string, base nack.BaseStreamConfig, replicas int) {
		a, ok := accounts[base.Account]
		key := strings.TrimPrefix(base.Account, "rollcall-") + ".nk"
		if !ok || a.NKey == nil || a.NKey.Seed != key {
			t.Errorf("%s: its account %q is %+v", name, base.Account, a)
		}
		if !base.PreventDelete {
			t.Errorf("%s is deleted with its resource", name)
		}
		if replicas != 3 {
			t.Errorf("%s has %d replicas", name, replicas)
		}
	}
	files := map[string]string{"agent-events": "rollcall-operator",
		"rollcall-alarm": "rollcall-operator", "agent-events-copy": "rollcall-copy-operator"}
	if names := slices.Sorted(maps.Keys(files)); !slices.Equal(names,
		slices.Sorted(maps.Keys(streams))) {
		t.Fatalf("want streams %q, and there are %d", names, len(streams))
	}
	for name, account := range files {
		spec := streams[name]
		used(name, spec.BaseStreamConfig, spec.Replicas)
		if spec.Account != account {
			t.Errorf("%s: the account is %s, want %s", name, spec.Account, account)
		}
		if d := cmp.Diff(stream(t, name+".json"), asStream(t, spec)); d != "" {
			t.Errorf("%s (-deploy/nats +NACK):\n%s", name, d)
		}
	}

	if bucket == nil {
		t.Fatal("there is no bucket")
	}
	used("the bucket", bucket.BaseStreamConfig, bucket.Replicas)
	want := stream(t, "kv-rollcall.json")
	if "KV_"+bucket.Bucket != want["name"] || bucket.Description != want["description"] ||
		bucket.Storage != want["storage"] || bucket.TTL != "" || bucket.MaxBytes != 0 ||
		bucket.LimitMarkerTTL != time.Duration(want["subject_delete_marker_ttl"].(float64)) {
		t.Errorf("the bucket is %+v", *bucket)
	}
}

// stream reads the configuration of a stream in deploy/nats, but for what means nothing.
func stream(t *testing.T, file string) map[string]any {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal([]byte(read(t, "deploy/nats/"+file)), &c); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return meaning(c)
}

func meaning(c map[string]any) map[string]any {
	delete(c, "num_replicas")
	maps.DeleteFunc(c, func(_ string, v any) bool {
		switch v.(type) {
		case map[string]any, []any:
			return false
		}
		return slices.Contains(unset, v)
	})
	return c
}

// asStream is the configuration that NACK makes of a spec, in the words of the JetStream API.
func asStream(t *testing.T, s nack.StreamSpec) map[string]any {
	t.Helper()
	type transform struct {
		Src  string `json:"src"`
		Dest string `json:"dest"`
	}
	c := map[string]any{
		"name": s.Name, "description": s.Description, "metadata": s.Metadata,
		"storage": s.Storage, "retention": s.Retention, "discard": s.Discard,
		"max_msgs": s.MaxMsgs, "max_msgs_per_subject": s.MaxMsgsPerSubject,
		"max_bytes": s.MaxBytes, "max_age": s.MaxAge, "max_msg_size": s.MaxMsgSize,
		"max_consumers": s.MaxConsumers, "allow_atomic": s.AllowAtomicPublish,
		"allow_rollup_hdrs": s.AllowRollup, "allow_msg_ttl": s.AllowMsgTTL,
		"allow_msg_schedules": s.AllowMsgSchedules, "allow_direct": s.AllowDirect,
		"deny_delete": s.DenyDelete, "deny_purge": s.DenyPurge, "no_ack": s.NoAck,
		"subject_delete_marker_ttl": s.SubjectDeleteMarkerTTL, "sealed": s.Sealed,
	}
	if s.Metadata == nil {
		delete(c, "metadata")
	}
	if s.Subjects != nil {
		c["subjects"] = s.Subjects
	}
	if tr := s.SubjectTransform; tr != nil {
		c["subject_transform"] = transform{tr.Source, tr.Dest}
	}
	if r := s.RePublish; r != nil {
		c["republish"] = transform{r.Source, r.Destination}
	}
	if m := s.Mirror; m != nil {
		c["mirror"] = map[string]any{"name": m.Name, "external": map[string]any{
			"api": m.ExternalAPIPrefix, "deliver": m.ExternalDeliverPrefix}}
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var again map[string]any
	if err := yaml.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	return meaning(again)
}
