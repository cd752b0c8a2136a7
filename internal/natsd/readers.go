package natsd

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rollcall-events/rollcall/schemas"
)

// How network clients are kept to reading
//
// Permissions alone can't do it. The server checks what a client publishes, but not where the
// answer to a request goes, nor where a push consumer delivers: in the stream's own account a
// reader could point either at rollcall.log.>, at agent.>, or at the API itself. So:
//
//   - Every network connection has an account of its own. Whatever it publishes, wherever it
//     directs the answers to its requests, the messages of its pull consumers or the server's
//     message traces, it only ever reaches itself.
//   - These accounts import agent.> from the stream's account and, subject by subject, what of the
//     JetStream API reading takes. An answer comes back over the import, under a subject that the
//     server makes up. Importing $JS.API.INFO as well keeps the server from adding its own import
//     of the whole API, which would answer that JetStream is not enabled for the account, and so
//     the API works without a prefix.
//   - A push consumer delivers in the stream's account. The requests that could create one
//     therefore go to the gate, a responder in that account, and so do the other requests that need
//     looking into. It forwards what it has decoded and checked, encoded again, never the client's
//     own bytes or headers.
//   - Questions to rollcall, and looks for services, are imported in the same way.
//   - Publishing anything but questions, API requests and acknowledgements is forbidden as well.
//     That protects nothing that the accounts do not, but the client is told.
//   - A queue group is one across all accounts that import the messages: a client that knows
//     another's group would be given a share of its live messages. So there are none.

const (
	ownAccount = "ROLLCALL" // holds the stream; its name is part of the store's paths
	ownUser    = "rollcall"

	stream   = schemas.Stream
	live     = schemas.StoredPrefix + ">"
	apiPre   = "$JS.API."
	gatePre  = "rollcall.gate."
	gateWait = 5 * time.Second

	// quietPull is how long a request for messages may go without a message or a heartbeat before
	// the way back to the reader is forgotten; what is delivered to the request later is lost. It
	// costs some 2 KB for each request that was made within that time on an inbox that is still
	// subscribed to.
	quietPull = 5 * time.Minute
	// quietLook is the same for a look for services.
	quietLook = 10 * time.Second
)

// ReservedConsumer is how the names of rollcall's own consumers of the stream begin. Readers do not
// see them in lists and can neither change nor delete them; the rest of the name should be random,
// so that nobody can guess it and ask for their messages.
const ReservedConsumer = "rollcall-"

// direct are the API requests that go straight to JetStream: they change nothing but a reader's own
// position.
var direct = map[string]server.ServiceRespType{
	"$JS.API.INFO":                               server.Singleton,
	"$JS.API.STREAM.NAMES":                       server.Singleton,
	"$JS.API.STREAM.LIST":                        server.Singleton,
	"$JS.API.STREAM.INFO." + stream:              server.Singleton,
	"$JS.API.STREAM.MSG.GET." + stream:           server.Singleton,
	"$JS.API.DIRECT.GET." + stream:               server.Streamed,
	"$JS.API.DIRECT.GET." + stream + ".>":        server.Streamed,
	"$JS.API.CONSUMER.INFO." + stream + ".*":     server.Singleton,
	"$JS.API.CONSUMER.MSG.NEXT." + stream + ".*": server.Streamed,
	// An acknowledgement can ask for the next messages. The second form has domain and account.
	"$JS.ACK." + stream + ".>":                 server.Streamed,
	"$JS.ACK.*.*." + stream + ".*.*.*.*.*.*.>": server.Streamed,
}

// questions go to who answers them, rollcall itself, and reveal nothing that the stream does not.
// Of a look for services there may be several answers.
var questions = map[string]server.ServiceRespType{
	schemas.QueryPrefix + ">": server.Singleton,
	micro.APIPrefix + ".>":    server.Streamed,
}

// gated are the API requests (without the prefix) that the gate answers.
var gated = []string{
	"CONSUMER.CREATE." + stream,
	"CONSUMER.CREATE." + stream + ".>",
	"CONSUMER.DURABLE.CREATE." + stream + ".*",
	"CONSUMER.DELETE." + stream + ".*",
	"CONSUMER.NAMES." + stream,
	"CONSUMER.LIST." + stream,
	// Refused, all of them; so that the client learns why at once.
	"STREAM.CREATE.*",
	"STREAM.UPDATE.*",
	"STREAM.DELETE.*",
	"STREAM.PURGE.*",
	"STREAM.MSG.DELETE.*",
	bucketInfo,
	"STREAM.INFO." + schemas.AlarmStream,
}

// bucketInfo is what "nats kv" and every client ask first.
const bucketInfo = "STREAM.INFO.KV_" + schemas.Bucket

// access tells rollcall's own connections from all others. It implements [server.Authentication].
type access struct {
	secret string
	ns     *server.Server
	own    *server.Account

	mu      sync.Mutex
	readers []*server.Account // all that were ever made; those without a connection are used again
}

// setup exports from the stream's account what readers import. The server must not have been
// started.
func (a *access) setup(ns *server.Server) (err error) {
	a.ns = ns
	if a.own, err = ns.LookupAccount(ownAccount); err != nil {
		return err
	}
	if err := a.own.AddStreamExport(live, nil); err != nil {
		return err
	}
	export := func(requests map[string]server.ServiceRespType, quiet time.Duration) error {
		for subject, answers := range requests {
			if err := a.own.AddServiceExportWithResponse(subject, answers, nil); err != nil {
				return err
			}
			if answers == server.Streamed {
				if err := a.own.SetServiceExportResponseThreshold(subject, quiet); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := errors.Join(export(direct, quietPull), export(questions, quietLook)); err != nil {
		return err
	}
	for _, req := range gated {
		if err := a.own.AddServiceExport(gatePre+req, nil); err != nil {
			return err
		}
	}
	return nil
}

// Check implements [server.Authentication].
func (a *access) Check(c server.ClientAuthentication) bool {
	if c.Kind() != server.CLIENT {
		return false
	}
	o := c.GetOpts()
	if o.Username == ownUser &&
		subtle.ConstantTimeCompare([]byte(o.Password), []byte(a.secret)) == 1 {
		c.RegisterUser(&server.User{Username: ownUser, Account: a.own})
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock() // held until the connection counts, so that no other gets the same account
	acc, err := a.free()
	if err != nil {
		a.ns.Errorf("No account for a reader: %v", err)
		return false
	}
	c.RegisterUser(&server.User{Username: "reader", Account: acc, Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{
			Allow: append([]string{"$JS.API.>", "$JS.ACK.>", "$SYS.REQ.USER.INFO"},
				slices.Sorted(maps.Keys(questions))...)},
		Subscribe: &server.SubjectPermission{Deny: []string{live + " >"}}, // in queue groups
	}})
	return true
}

// free finds or makes an account without a connection. Accounts can't be removed from a server;
// there are never more than there were connections at the same time. a.mu must be held.
func (a *access) free() (*server.Account, error) {
	for _, acc := range a.readers {
		if acc.NumLocalConnections() == 0 {
			return acc, nil
		}
	}
	acc, err := a.ns.RegisterAccount(fmt.Sprintf("READER-%d", len(a.readers)+1))
	if err != nil {
		return nil, err
	}
	if err := acc.AddStreamImport(a.own, live, ""); err != nil {
		return nil, err
	}
	for _, requests := range []map[string]server.ServiceRespType{direct, questions} {
		for subject := range requests {
			if err := acc.AddServiceImport(a.own, subject, subject); err != nil {
				return nil, fmt.Errorf("import %s: %w", subject, err)
			}
		}
	}
	for _, req := range gated {
		if err := acc.AddServiceImport(a.own, apiPre+req, gatePre+req); err != nil {
			return nil, fmt.Errorf("import %s: %w", req, err)
		}
	}
	a.readers = append(a.readers, acc)
	return acc, nil
}

// openGate starts answering the readers' gated requests on nc, a connection to the stream's
// account.
func openGate(nc *nats.Conn) error {
	answer := func(m *nats.Msg) {
		if m.Reply == "" {
			return
		}
		// The connection closes at shutdown only: nobody is left to be told of a failed answer.
		_ = m.Respond(pass(nc, strings.TrimPrefix(m.Subject, gatePre), m.Data))
	}
	var err error
	for range 4 { // at a time: creating a durable consumer waits for the disk
		_, subErr := nc.QueueSubscribe(gatePre+">", "gate", answer)
		err = errors.Join(err, subErr)
	}
	// The subscriptions are in place when the server has answered this.
	if err = errors.Join(err, nc.Flush()); err != nil {
		return fmt.Errorf("subscribe to the readers' requests: %w", err)
	}
	return nil
}

// pass checks one request and returns its answer.
func pass(nc *nats.Conn, req string, body []byte) []byte {
	var answer []byte
	var err error
	command, rest, _ := strings.Cut(req, "."+stream)
	name := strings.TrimPrefix(rest, ".")
	switch command {
	case "CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE":
		name, _, _ = strings.Cut(name, ".") // a filter may follow
		if body, err = readersConsumer(name, body); err == nil {
			answer, err = ask(nc, req, body)
		}
	case "CONSUMER.DELETE":
		if err = reserved(name); err == nil {
			answer, err = ask(nc, req, nil)
		}
	case "CONSUMER.NAMES", "CONSUMER.LIST":
		if answer, err = ask(nc, req, body); err == nil {
			answer, err = hideReserved(answer)
		}
	default:
		err = refused("network clients may read the stream and nothing else")
		if req == bucketInfo {
			err = refused("the bucket " + schemas.Bucket + " is rollcall's own: " + err.Error() +
				" (who is on duty is in " + stream + ", on agent.state.>)")
		}
	}
	if err == nil {
		return answer
	}
	code := 503
	if errors.As(err, new(refused)) {
		code = 403
	}
	no := server.ApiError{Code: code, Description: err.Error()}
	answer, _ = json.Marshal(server.ApiResponse{Error: &no}) // strings and numbers only
	return answer
}

func ask(nc *nats.Conn, req string, body []byte) ([]byte, error) {
	m, err := nc.Request(apiPre+req, body, gateWait)
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

// refused is why a reader's request has not been carried out.
type refused string

func (r refused) Error() string { return string(r) }

// readersConsumer checks a request for a consumer of that name, which may be empty, and encodes it
// again, so that what is carried out is what was checked.
func readersConsumer(name string, body []byte) ([]byte, error) {
	var r server.CreateConsumerRequest
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields() // as the server does: what it does not know must not seem to work
	if err := d.Decode(&r); err != nil {
		return nil, refused("not a request for a consumer: " + err.Error())
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, refused("more than one request for a consumer")
	}
	if r.Config.DeliverSubject != "" || r.Config.DeliverGroup != "" {
		return nil, refused("push consumers are not for network clients: use a pull consumer")
	}
	if err := reserved(name, r.Config.Name, r.Config.Durable); err != nil {
		return nil, err
	}
	b, err := json.Marshal(&r)
	if err != nil {
		return nil, refused("not a request for a consumer: " + err.Error())
	}
	return b, nil
}

func reserved(names ...string) error {
	for _, n := range names {
		if strings.HasPrefix(n, ReservedConsumer) {
			return refused("consumers whose names begin with " + ReservedConsumer +
				" are rollcall's own")
		}
	}
	return nil
}

// hideReserved takes rollcall's own consumers out of a list of consumers or of their names.
func hideReserved(answer []byte) ([]byte, error) {
	var list map[string]json.RawMessage
	if err := json.Unmarshal(answer, &list); err != nil || list["consumers"] == nil {
		return answer, err
	}
	var all []json.RawMessage
	var total int
	err := errors.Join(
		json.Unmarshal(list["consumers"], &all), json.Unmarshal(list["total"], &total))
	if err != nil {
		return nil, err
	}
	seen := []json.RawMessage{}
	for _, c := range all {
		var info struct {
			Name string `json:"name"`
		}
		if json.Unmarshal(c, &info.Name) != nil { // a list of consumers, not of their names
			if err := json.Unmarshal(c, &info); err != nil {
				return nil, err
			}
		}
		if reserved(info.Name) == nil {
			seen = append(seen, c)
		}
	}
	list["consumers"], err = json.Marshal(seen)
	if err != nil {
		return nil, err
	}
	list["total"] = strconv.AppendInt(nil, int64(total-(len(all)-len(seen))), 10)
	return json.Marshal(list)
}
