package sessions

import (
	"context"
	"sync"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/session"
)

// Owner is who is at the other end of a connection, by its credential.
type Owner struct {
	// Identity has no instance yet where the credential is a bare key.
	Identity ident.Identity
	// AnyService: the credential may be any service, so Hello says which.
	AnyService bool
	Door       string // "link" or "grpc"
	Addr       string // for people who read logs
}

// held is one session: what goes on over all connections of one instance.
type held struct {
	server  *Server
	key     key
	id      string
	token   digest
	before  digest // the token that the Hello of this session carried, if any
	peer    *session.Peer
	created time.Time
	permits int // once the session has proven itself

	mu         sync.Mutex
	detach     func() // from the router; nil while it is to send nothing here
	owner      Owner  // by the credential of the latest connection
	current    *Port  // nil while cut
	window     clock.Timer
	reach      func() // ends reachable; nil while it is not
	registered bool
	suspended  bool
	draining   bool
	ended      *errs.Error
	fencedOff  bool
	raised     bool
}

func (h *held) connected() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current != nil
}

func (h *held) info() Info {
	in, out := h.peer.InFlight()
	h.mu.Lock()
	defer h.mu.Unlock()
	state := session.Ready
	switch {
	case h.fencedOff:
		state = session.Fenced
	case h.ended != nil:
		state = session.Closed
	case h.draining:
		state = session.Draining
	case h.current == nil || h.suspended:
		state = session.Suspended
	case in+out > 0:
		state = session.Active
	}
	return Info{
		Namespace: h.key.namespace, Instance: h.key.instance, Service: h.owner.Identity.Service, Door: h.owner.Door,
		ID: h.id, State: state, Since: h.created, Inbound: in, Outbound: out,
	}
}

func (h *held) identity() ident.Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.owner.Identity
}

// caller is whom the router is told of when this instance calls.
func caller(id ident.Identity) message.Caller {
	return message.Caller{Namespace: id.Namespace, Service: id.Service, Instance: id.Instance, KeyID: id.KeyID}
}

// attach makes p carry the session. It reports the replaced connection, if there is
// one, and false when the session has ended meanwhile.
func (h *held) attach(p *Port) (previous *Port, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return nil, false
	}
	previous = h.current
	h.current = p
	h.owner = p.owner
	h.suspended = false
	h.route()
	if h.window != nil {
		h.window.Stop()
		h.window = nil
	}
	return previous, true
}

// lost tells that a connection has ended. If it carried the session, the instance is
// unreachable at once, and the session ends unless it is resumed in time.
func (h *held) lost(p *Port, cause error) {
	h.mu.Lock()
	if h.current != p || h.ended != nil {
		h.mu.Unlock()
		return
	}
	h.current = nil
	h.unreachable()
	var timer clock.Timer
	timer = h.server.cfg.Clock.AfterFunc(h.server.cfg.Window, func() {
		h.mu.Lock()
		due := h.window == timer && h.current == nil && h.ended == nil
		h.mu.Unlock()
		if due {
			h.server.end(h, errs.New(errs.Unavailable, "the session was not resumed within %s", h.server.cfg.Window), nil)
		}
	})
	h.window = timer
	h.mu.Unlock()
	h.peer.Detach(p, cause)
}

// route has the router send commands here from now on, with mu held.
func (h *held) route() {
	if h.detach == nil {
		h.detach = h.server.cfg.Router.Attach(h.key.namespace, h.key.instance, h.peer)
	}
}

// unroute ends that, with mu held. Commands that are here already stay.
func (h *held) unroute() {
	if h.detach != nil {
		h.detach()
		h.detach = nil
	}
}

// unreachable tells the registry, with mu held.
func (h *held) unreachable() {
	if h.reach != nil {
		h.reach()
		h.reach = nil
		h.server.pushes.counted(h.key.namespace, h.owner.Identity.Service)
	}
}

// reachable tells the registry that commands can be delivered, if the instance has
// registered over this session and a live connection carries it. Where the registration
// has ended meanwhile, the session ends too: its successor brings a new one.
func (h *held) reachable() {
	h.mu.Lock()
	if h.ended != nil || h.current == nil || !h.registered || h.suspended {
		h.mu.Unlock()
		return
	}
	end, ok := h.server.cfg.Registry.Session(h.key.namespace, h.key.instance)
	if ok {
		h.reach = end
		h.server.pushes.counted(h.key.namespace, h.owner.Identity.Service)
	}
	h.mu.Unlock()
	if !ok {
		h.server.end(h, lapsedError(h.key), nil)
	}
}

// touch notes a sign of life. It ends a session whose registration has ended.
func (h *held) touch() {
	if h.server.cfg.Registry.Touch(h.key.namespace, h.key.instance) {
		return
	}
	h.mu.Lock()
	registered := h.registered
	h.mu.Unlock()
	if registered {
		h.server.end(h, lapsedError(h.key), nil)
	}
}

// lapsed reports whether there is nothing to go on with: the registration has ended, or
// the instance has neither registered nor called over this session. Who asks is at the
// other end, which is a sign of life.
func (h *held) lapsed() bool {
	h.mu.Lock()
	registered := h.registered
	h.mu.Unlock()
	if registered {
		return !h.server.cfg.Registry.Touch(h.key.namespace, h.key.instance)
	}
	at := h.peer.Position()
	return at.Floor == 0 && len(at.Above) == 0 && at.LastSent == 0
}

// suspend marks that the other end is silent; revive that it was heard again.
func (h *held) suspend(p *Port) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == p && !h.suspended {
		h.suspended = true
		h.unreachable()
		h.unroute()
	}
}

func (h *held) revive(p *Port) {
	h.mu.Lock()
	was := h.current == p && h.suspended && h.ended == nil
	if was {
		h.suspended = false
		h.route()
	}
	h.mu.Unlock()
	if was {
		h.reachable()
	}
}

// end ends a session for good. fencer is the port whose Hello took its place, if that
// is why.
func (s *Server) end(h *held, cause *errs.Error, fencer *Port) {
	h.mu.Lock()
	if h.ended != nil {
		h.mu.Unlock()
		return
	}
	h.ended = cause
	h.fencedOff = fencer != nil
	h.current = nil
	if h.window != nil {
		h.window.Stop()
	}
	if !s.stopping.Load() { // else nobody is left to tell
		h.unreachable()
	}
	h.unroute()
	h.mu.Unlock()
	s.mu.Lock()
	if s.sessions[h.key] == h {
		delete(s.sessions, h.key)
	}
	if fencer != nil {
		s.rememberFenced(h.token)
	}
	var ports []*Port
	for p := range s.ports {
		if p.held.Load() == h && p != fencer {
			ports = append(ports, p)
		}
	}
	s.mu.Unlock()
	for _, p := range ports {
		if fencer != nil {
			// The last words go out before the connection closes, which the peer would do.
			h.peer.Detach(p, cause)
			p.fence(cause)
		} else {
			p.Close(cause)
		}
	}
	h.peer.Close(cause)
}

// rememberFenced keeps, with mu held, a token that must not come back.
func (s *Server) rememberFenced(d digest) {
	if _, known := s.fenced[d]; known {
		return
	}
	if len(s.fencedLine) >= rememberFenced {
		delete(s.fenced, s.fencedLine[0])
		s.fencedLine = s.fencedLine[1:]
	}
	s.fenced[d] = struct{}{}
	s.fencedLine = append(s.fencedLine, d)
}

// leave takes the instance off the map, where it is registered, and ends its session.
func (h *held) leave(ctx context.Context, cause *errs.Error, reason catalog.Reason) {
	h.mu.Lock()
	h.draining = true
	h.mu.Unlock()
	reg := h.server.cfg.Registry
	if err := reg.Deregister(ctx, h.key.namespace, h.key.instance, reason); err != nil && errs.CodeOf(err) != errs.NotFound {
		h.server.cfg.Log.Warn("deregister at the end of a session", "namespace", h.key.namespace, "instance", h.key.instance, "error", err)
	}
	h.server.end(h, cause, nil)
}
