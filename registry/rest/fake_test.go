package rest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"telford.dev/telford/registry/rest"
)

// fake is a registry in memory that is reached without a network, so that it runs in a
// bubble of virtual time. It keeps the rules that the client relies on.
type fake struct {
	mu       sync.Mutex
	services map[string]*fakeService
	values   map[string]string
	events   []rest.Event
	requests []string // method and path, of all that arrived
	serial   int
	floor    int // markers below are unknown

	down   bool   // nobody answers
	hang   bool   // nobody answers, and says so late
	lose   int    // this many answers get lost on the way
	status int    // every request is answered with it
	onList func() // called while a list is being read
}

type fakeService struct {
	rest.Service
	token    string
	deadline time.Time
}

func newFake() *fake {
	return &fake{services: make(map[string]*fakeService), values: make(map[string]string)}
}

// client returns a client of the fake.
func (f *fake) client(t *testing.T) *rest.Client {
	t.Helper()
	c, err := rest.New("http://registry.test", rest.WithToken("dev", "7777"), rest.WithHTTPClient(&http.Client{Transport: f}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// set changes the fake while it runs.
func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// count returns how many requests begin with this.
func (f *fake) count(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// feed returns the types and ids of what happened to services.
func (f *fake) feed() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sweep()
	var out []string
	for _, e := range f.events {
		if s, err := e.Service(); err == nil {
			out = append(out, string(e.Type)+" "+s.ID)
		}
	}
	return out
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	down, hang := f.down, f.hang
	f.mu.Unlock()
	if hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if down {
		return nil, errors.New("connection refused")
	}
	rec := httptest.NewRecorder()
	f.serve(rec, r)
	f.mu.Lock()
	lost := f.lose > 0
	if lost {
		f.lose--
	}
	f.mu.Unlock()
	if lost {
		return nil, io.ErrUnexpectedEOF
	}
	return rec.Result(), nil
}

func (f *fake) id() string {
	f.serial++
	return fmt.Sprintf("%08x-0000-1000-8000-000000000000", f.serial)
}

func (f *fake) event(t rest.EventType, payload json.RawMessage) {
	f.events = append(f.events, rest.Event{ID: f.id(), Time: time.Now(), Type: t, Payload: payload})
}

func (f *fake) serviceEvent(t rest.EventType, s rest.Service) {
	payload, _ := rest.ServicePayload(s)
	f.event(t, payload)
}

// put stores a value as a request would.
func (f *fake) put(id, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var old *string
	if v, ok := f.values[id]; ok {
		old = &v
	}
	f.values[id] = value
	payload, _ := rest.UpdatePayload(id, old, value)
	f.event(rest.ConfigurationUpdate, payload)
}

func (f *fake) remove(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	payload, _ := rest.RemovePayload(id, f.values[id])
	delete(f.values, id)
	f.event(rest.ConfigurationRemove, payload)
}

// sweep times out what is overdue.
func (f *fake) sweep() {
	for id, s := range f.services {
		if time.Now().After(s.deadline) {
			delete(f.services, id)
			f.serviceEvent(rest.ServiceTimeout, s.Service)
		}
	}
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1.0/7777")
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+path)
	if f.status != 0 {
		f.mu.Unlock()
		w.WriteHeader(f.status)
		return
	}
	if onList := f.onList; onList != nil && path == "/configuration" {
		f.onList = nil
		f.mu.Unlock()
		onList()
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch parts[0] {
	case "events":
		f.sweep()
		if m := r.URL.Query().Get("marker"); m != "" && m < fmt.Sprintf("%08x", f.floor) {
			fail(w, rest.NewFault(rest.FaultBadRequest, "from parameter must be greater than or equal to the account creation date", ""))
			return
		}
		writePage(w, r.URL.Query(), f.events, func(e rest.Event) string { return e.ID })
	case "configuration":
		var values []rest.ConfigurationValue
		for id, v := range f.values {
			if len(parts) == 1 || strings.HasPrefix(id, "/"+parts[1]) {
				values = append(values, rest.ConfigurationValue{ID: id, Value: v})
			}
		}
		slices.SortFunc(values, func(a, b rest.ConfigurationValue) int { return strings.Compare(a.ID, b.ID) })
		writePage(w, r.URL.Query(), values, func(v rest.ConfigurationValue) string { return v.ID })
	default:
		f.serveServices(w, r, parts)
	}
}

func (f *fake) serveServices(w http.ResponseWriter, r *http.Request, parts []string) {
	var body rest.Service
	var token struct{ Token string }
	if r.Body != nil {
		text, _ := io.ReadAll(r.Body)
		_, _ = json.Unmarshal(text, &body), json.Unmarshal(text, &token)
	}
	if len(parts) < 3 {
		f.sweep()
	}
	if len(parts) == 1 && r.Method == http.MethodPost {
		if f.services[body.ID] != nil {
			fail(w, rest.NewFault(rest.FaultServiceExists, "exists", "exists"))
			return
		}
		s := &fakeService{Service: body, token: f.id(), deadline: time.Now().Add(body.HeartbeatTimeout)}
		f.services[s.ID] = s
		f.serviceEvent(rest.ServiceJoin, s.Service)
		write(w, 201, map[string]string{"token": s.token})
		return
	}
	if len(parts) == 1 {
		var all []rest.Service
		for _, s := range f.services {
			if tag := r.URL.Query().Get("tag"); tag == "" || slices.Contains(s.Tags, tag) {
				all = append(all, s.Service)
			}
		}
		slices.SortFunc(all, func(a, b rest.Service) int { return strings.Compare(a.ID, b.ID) })
		writePage(w, r.URL.Query(), all, func(s rest.Service) string { return s.ID })
		return
	}
	s := f.services[parts[1]]
	if s == nil {
		fail(w, rest.NewFault(rest.FaultNotFound, "object does not exist", fmt.Sprintf("Object \"Service\" with key %q does not exist", parts[1])))
		return
	}
	switch {
	case len(parts) == 3 && s.token != token.Token:
		fail(w, rest.NewFault(rest.FaultNotFound, "object does not exist", fmt.Sprintf("Object \"HeartbeatMarker\" with key %q does not exist", token.Token)))
	case len(parts) == 3:
		s.token, s.deadline, s.LastSeen = f.id(), time.Now().Add(s.HeartbeatTimeout), time.Now()
		write(w, 200, map[string]string{"token": s.token})
	case r.Method == http.MethodGet:
		write(w, 200, s.Service)
	case r.Method == http.MethodPut:
		if body.Metadata != nil {
			s.Metadata = body.Metadata
		}
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodDelete:
		delete(f.services, parts[1])
		f.serviceEvent(rest.ServiceRemove, s.Service)
		w.WriteHeader(http.StatusNoContent)
	}
}

func fail(w http.ResponseWriter, f *rest.Fault) { write(w, f.Code, f) }

func write(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// writePage cuts a page out of a sorted list, its marker inclusive.
func writePage[T any](w http.ResponseWriter, q url.Values, all []T, id func(T) string) {
	p := rest.Page[T]{Values: []T{}}
	limit := rest.DefaultLimit
	if text := q.Get("limit"); text != "" {
		limit, _ = strconv.Atoi(text)
	}
	for _, v := range all {
		switch {
		case id(v) < q.Get("marker"):
		case len(p.Values) == limit:
			next := id(v)
			p.Metadata.NextMarker = &next
			write(w, 200, p)
			return
		default:
			p.Values = append(p.Values, v)
		}
	}
	write(w, 200, p)
}
