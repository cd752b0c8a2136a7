package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

// A router answers HTTP requests.
type router struct {
	http.ServeMux
	roster *follow.Roster
	file   string

	mu    sync.Mutex        // guards calls, in memory and in the file
	calls map[string]string // agentId by the call's id
}

// An agent that is on duty for video calls. Its id is a string in JSON, since it may exceed 2^53.
type agent struct {
	ID       int64  `json:"agentId,string"`
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
	Capacity int64  `json:"capacity"` // calls at a time
	Calls    int64  `json:"calls"`    // that it has
}

// newRouter goes on with the calls in the file.
func newRouter(roster *follow.Roster, file string) (*router, error) {
	r := &router{roster: roster, file: file, calls: map[string]string{}}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &r.calls)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the calls from %s: %w", file, err)
	}
	r.HandleFunc("GET /agents", r.getAgents)
	r.HandleFunc("PUT /calls/{id}", r.putCall)
	r.HandleFunc("DELETE /calls/{id}", r.deleteCall)
	return r, nil
}

// available are the agents on duty for video calls, in no order, busy ones included. r.mu must be
// held.
func (r *router) available() []agent {
	load := map[string]int64{}
	for _, id := range r.calls {
		load[id]++
	}
	all := []agent{}
	for e := range r.roster.All(schemas.TypeVideo) {
		a := e.Data.Agent
		if !e.Data.Online {
			continue
		}
		next := agent{
			ID: a.AgentID, Revision: e.Data.Revision, Capacity: 1,
			Calls: load[strconv.FormatInt(a.AgentID, 10)],
		}
		if a.AgentName != nil {
			next.Name = *a.AgentName
		}
		if a.Capacity != nil { // an agent without one takes a call at a time
			next.Capacity = *a.Capacity
		}
		all = append(all, next)
	}
	return all
}

// free is the agent that has most of its capacity left, of several any; false if nobody has any.
func free(all []agent) (best agent, ok bool) {
	load := func(a agent) float64 { return float64(a.Calls) / float64(a.Capacity) }
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, a := range all {
		if a.Calls < a.Capacity && (!ok || load(a) < load(best)) {
			best, ok = a, true
		}
	}
	return best, ok
}

func (r *router) putCall(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := req.PathValue("id")
	if agentID, ok := r.calls[id]; ok { // asked again
		answer(w, http.StatusOK, map[string]string{"agentId": agentID})
		return
	}
	if err := r.roster.Trust(time.Now()).Err(); err != nil {
		answer(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
		return
	}
	a, ok := free(r.available())
	if !ok {
		answer(w, http.StatusConflict, map[string]string{"error": "nobody is free"})
		return
	}
	r.calls[id] = strconv.FormatInt(a.ID, 10)
	if err := r.save(); err != nil {
		delete(r.calls, id)
		answer(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
		return
	}
	answer(w, http.StatusCreated, map[string]string{"agentId": r.calls[id]})
}

func (r *router) deleteCall(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := req.PathValue("id")
	agentID, ok := r.calls[id]
	delete(r.calls, id)
	if err := r.save(); err != nil {
		if ok {
			r.calls[id] = agentID
		}
		answer(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *router) getAgents(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	all := r.available()
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b agent) int { return cmp.Compare(a.ID, b.ID) })
	body := struct {
		Error  string              `json:"error,omitempty"` // why not to trust it
		AsOf   *time.Time          `json:"asOf,omitempty"`
		Health schemas.HealthState `json:"health,omitempty"`
		Agents []agent             `json:"agents"`
	}{Agents: all}
	trust := r.roster.Trust(time.Now())
	if err := trust.Err(); err != nil {
		body.Error = err.Error()
	}
	if trust.Watermark != nil && trust.Watermark.Sweep > 0 {
		body.AsOf = &trust.Watermark.StartedAt
	}
	if trust.Health != nil {
		body.Health = trust.Health.State
	}
	answer(w, http.StatusOK, body)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // an error means that the client has left
}

// save replaces the file in one step, so that it is whole at any moment.
func (r *router) save() error {
	b, err := json.Marshal(r.calls)
	if err == nil {
		err = writeSynced(r.file+".new", b)
	}
	if err == nil {
		err = os.Rename(r.file+".new", r.file)
	}
	if err != nil {
		return fmt.Errorf("keep the calls: %w", err)
	}
	return nil
}

func writeSynced(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
