package ipc

import (
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// ServiceInfo describes a service that is connected to a gateway.
type ServiceInfo struct {
	Name          string
	Methods       []string
	Version       string
	Metadata      json.RawMessage
	ConnectedAt   time.Time
	LastHeartbeat time.Time // when any message came from it
	Connections   int       // more than one for a pool
	InFlight      int       // calls to it without answer
	Serializer    Serializer
	Peer          Peer
}

// callKey names a call to one service: ids are unique per caller only.
type callKey struct{ from, id string }

// grace is how long after its deadline a call may still be answered.
const grace = 5 * time.Second

// service is one name, with the connections that hold it and the calls they owe an
// answer to.
type service struct {
	name        string
	connectedAt time.Time
	poolSize    int // zero for a service of one connection
	peer        Peer

	mu    sync.Mutex
	info  Registration
	conns []*conn // the first is the primary one
	index map[*conn]int
	next  int // of conns, for the next call
	calls map[callKey]flight
}

// flight is a call that has been handed to a connection of its target.
type flight struct {
	key    callKey
	to     string // the service that was called
	target *conn
	caller *conn
	// callers is the service that called, on any of whose connections the answer may go;
	// nil when the caller is not registered.
	callers *service
	// reply takes the answer of a call that came from no connection.
	reply func(answer)
	// expires is in milliseconds since 1970; own says that the call has a deadline, so that
	// the caller knows.
	expires int64
	own     bool
}

// answer is how a call from no connection ended.
type answer struct {
	data json.RawMessage
	err  error
}

// begin picks the next connection for a call and notes that it owes an answer, if the
// call has a key.
func (s *service) begin(f flight, limit int) (*conn, *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) == 0 {
		return nil, notFound(s.name)
	}
	if f.key.id != "" {
		if len(s.calls) >= limit {
			return nil, Errorf(CodeExecutionFailed, "Service '%s' owes the answers to %d calls, which is the limit", s.name, limit)
		}
		if old, there := s.calls[f.key]; there && old.caller != f.caller && (old.callers == nil || old.callers != f.callers) {
			return nil, Errorf(CodeInvalidMessage, "Another connection has a call '%s' of '%s' in flight", f.key.id, f.key.from)
		}
	}
	f.target = s.conns[s.next%len(s.conns)]
	s.next = (s.next + 1) % len(s.conns)
	if f.key.id != "" {
		s.calls[f.key] = f
	}
	return f.target, nil
}

// end takes the call out that an answer is for.
func (s *service) end(to, id []byte) (flight, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.calls[callKey{string(to), string(id)}]
	if ok {
		delete(s.calls, f.key)
	}
	return f, ok
}

// forget takes a call out that could not be handed over after all.
func (s *service) forget(key callKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.calls[key]
	delete(s.calls, key)
	return there
}

// remove takes a connection out, and returns the calls it owed and whether it was the
// last.
func (s *service) remove(c *conn) (owed []flight, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.Index(s.conns, c)
	if at < 0 {
		return nil, false
	}
	s.conns = slices.Delete(s.conns, at, at+1)
	delete(s.index, c)
	if at < s.next {
		s.next--
	}
	for key, f := range s.calls {
		if f.target == c {
			owed = append(owed, f)
			delete(s.calls, key)
		}
	}
	return owed, len(s.conns) == 0
}

// expired takes out the calls that will not be answered, and returns those whose callers
// do not know.
func (s *service) expired(now time.Time) []flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []flight
	for key, f := range s.calls {
		if now.UnixMilli() <= f.expires {
			continue
		}
		delete(s.calls, key)
		if !f.own {
			out = append(out, f)
		}
	}
	return out
}

// primary is the connection for answers to the service, or nil when it is gone.
func (s *service) primary() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) == 0 {
		return nil
	}
	return s.conns[0]
}

func (s *service) members() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.conns)
}

// silent reports whether nothing came on any connection since then.
func (s *service) silent(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if c.seen.Load() >= since.UnixMilli() {
			return false
		}
	}
	return true
}

func (s *service) describe() ServiceInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := ServiceInfo{
		Name: s.name, Methods: slices.Clone(s.info.Methods), Version: s.info.Version, Metadata: s.info.Metadata,
		ConnectedAt: s.connectedAt, Connections: len(s.conns), InFlight: len(s.calls), Peer: s.peer,
	}
	for i, c := range s.conns {
		if i == 0 {
			info.Serializer = c.encoding()
		}
		if at := time.UnixMilli(c.seen.Load()); at.After(info.LastHeartbeat) {
			info.LastHeartbeat = at
		}
	}
	return info
}

// destination is the connection that takes the answer, or nil when the caller is gone.
func (f *flight) destination() *conn {
	if f.callers != nil {
		return f.callers.primary()
	}
	return f.caller
}

func notFound(name string) *Error {
	return Errorf(CodeServiceNotFound, "Target service '%s' not found", name)
}
