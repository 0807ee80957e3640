package sessions

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	mrand "math/rand/v2"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/session"
	"telford.dev/telford/server/internal/registry"
)

// handle handles one control message. An error ends the connection.
func (p *Port) handle(m *telfordv1.ClientMessage) *errs.Error {
	h := p.held.Load()
	if v, ok := m.GetMessage().(*telfordv1.ClientMessage_Hello); ok {
		if h != nil {
			return errs.New(errs.FailedPrecondition, "a second Hello came on one connection")
		}
		return p.hello(v.Hello)
	}
	if h == nil {
		return errs.New(errs.FailedPrecondition, "a session begins with Hello and the first message is %T", m.GetMessage())
	}
	switch v := m.GetMessage().(type) {
	case *telfordv1.ClientMessage_Register:
		return p.register(h, v.Register)
	case *telfordv1.ClientMessage_Status:
		p.status(h, v.Status)
	case *telfordv1.ClientMessage_Watch:
		p.watch(h, v.Watch)
	case *telfordv1.ClientMessage_Ping:
		return errs.From(p.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Pong{Pong: &telfordv1.Pong{Id: v.Ping.GetId()}}}))
	case *telfordv1.ClientMessage_Pong:
		// Heard is all it has to be.
	case *telfordv1.ClientMessage_Ack:
		h.peer.OnAck(v.Ack)
	case *telfordv1.ClientMessage_Cancel:
		h.peer.OnCancel(v.Cancel.GetSeq())
	case *telfordv1.ClientMessage_Goodbye:
		p.goodbye(v.Goodbye)
	case *telfordv1.ClientMessage_Report:
		return p.report(h, v.Report)
	case nil:
		return errs.New(errs.InvalidArgument, "a control message is empty, or newer than this runtime")
	default:
		return errs.New(errs.InvalidArgument, "a control message of type %T does not belong here", m.GetMessage())
	}
	return nil
}

// claimed completes the owner by what Hello says, within what the credential allows.
func (p *Port) claimed(m *telfordv1.Hello) *errs.Error {
	id := &p.owner.Identity
	if m.GetService() != "" && m.GetService() != id.Service {
		if !p.owner.AnyService {
			return errs.New(errs.PermissionDenied, "Hello says service %q and the credential is that of service %q", m.GetService(), id.Service)
		}
		id.Service = m.GetService()
	}
	if err := ident.CheckService(id.Service); err != nil {
		return errs.From(err)
	}
	switch {
	case id.Instance == "" && m.GetInstance() == "":
		id.Instance = p.server.ids.New("in", p.server.cfg.Clock.Now())
	case id.Instance == "":
		id.Instance = m.GetInstance()
	case m.GetInstance() != "" && m.GetInstance() != id.Instance:
		return errs.New(errs.PermissionDenied, "Hello says instance %q and the certificate is that of instance %q", m.GetInstance(), id.Instance)
	}
	if err := ident.CheckInstance(id.Instance); err != nil {
		return errs.From(err)
	}
	if err := p.server.cfg.Authority.Trust().CheckRevoked(*id); err != nil {
		return errs.From(err)
	}
	return nil
}

// hello begins, resumes, or hands over the session.
func (p *Port) hello(m *telfordv1.Hello) *errs.Error {
	s := p.server
	if e := p.claimed(m); e != nil {
		return e
	}
	k := key{p.owner.Identity.Namespace, p.owner.Identity.Instance}
	var presented digest
	if m.GetResumeToken() != "" {
		presented = sha256.Sum256([]byte(m.GetResumeToken()))
	}
	token := m.GetResumeToken()

	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		return errs.New(errs.Unavailable, "the runtime is stopping").After(retryStopping)
	}
	old := s.sessions[k]
	c := claim{token: token != "", exists: old != nil}
	if c.token {
		_, c.fenced = s.fenced[presented]
	}
	if old != nil {
		if service := old.identity().Service; service != p.owner.Identity.Service {
			s.mu.Unlock()
			return errs.New(errs.PermissionDenied, "instance id %q is held by an instance of service %q; choose another one", k.instance, service)
		}
		c.matches = c.token && old.token == presented
		c.precedes = c.token && old.before == presented
		c.connected = old.connected()
		c.lapsed = c.matches && old.lapsed()
	}
	v := decide(c)
	h := old
	switch v {
	case refuse:
		s.mu.Unlock()
		cause := fencedError(k)
		p.fence(cause)
		return nil
	case begin, replace, renew:
		if old == nil && len(s.sessions) >= s.cfg.MaxSessions {
			s.mu.Unlock()
			return errs.New(errs.ResourceExhausted, "the runtime holds its limit of %d sessions", s.cfg.MaxSessions).After(retryFull)
		}
		token = rand.Text()
		h = s.newHeld(k, p.owner, sha256.Sum256([]byte(token)), presented, m.GetMaxInFlight())
		s.sessions[k] = h
	}
	s.mu.Unlock()
	switch v {
	case replace:
		s.end(old, fencedError(k), p)
	case renew:
		s.end(old, lapsedError(k), nil)
	}
	return p.welcome(h, v, m, token)
}

func fencedError(k key) *errs.Error {
	return errs.New(errs.FailedPrecondition, "another process has opened a session as instance %q; give each process an instance id of its own", k.instance)
}

func lapsedError(k key) *errs.Error {
	return errs.New(errs.Unavailable, "the registration of instance %q has ended, and its session with it; say Hello anew and register again", k.instance)
}

// newHeld makes a session, with mu held.
func (s *Server) newHeld(k key, owner Owner, token, before digest, inFlight uint32) *held {
	now := s.cfg.Clock.Now()
	h := &held{
		server: s, key: k, owner: owner, token: token, before: before, created: now, id: s.ids.New("ses", now),
		permits: session.InitialPermits,
	}
	if inFlight > 0 {
		h.permits = int(min(inFlight, session.MaxPermits))
	}
	h.peer = session.NewPeer(session.PeerOptions{
		Handler: s.cfg.Router.AsHandler(caller(owner.Identity), k.namespace),
		// What cannot be sent to this instance now is better sent to another.
		NoWait:  true,
		Permits: min(session.InitialPermits, h.permits), Window: s.cfg.Window, Clock: s.cfg.Clock, Log: s.cfg.Log,
	})
	h.route() // nobody else has it yet
	return h
}

// welcome makes the connection carry the session and says HelloAck.
func (p *Port) welcome(h *held, v verdict, m *telfordv1.Hello, token string) *errs.Error {
	s := p.server
	p.held.Store(h)
	// Who is revoked from now on is found by it; who was so since the Hello was judged, here.
	if err := s.cfg.Authority.Trust().CheckRevoked(p.owner.Identity); err != nil {
		if v == begin || v == replace {
			s.end(h, errs.From(err), nil)
		}
		return errs.From(err)
	}
	previous, ok := h.attach(p)
	if !ok {
		return errs.New(errs.Unavailable, "the session ended while it was being opened; say Hello anew")
	}
	resumed := v == resume || v == handover
	theirs := session.Position{Floor: m.GetReceivedFloor(), Above: m.GetReceivedAbove(), LastSent: m.GetLastSent()}
	replayed, reconciled := h.peer.Attach(p, theirs, resumed)
	if previous != nil {
		previous.retire()
	}
	at := h.peer.Position()
	id := h.identity()
	ack := &telfordv1.HelloAck{
		SessionId: h.id, ResumeToken: token, Resumed: resumed, Handover: v == handover,
		ReceivedFloor: at.Floor, ReceivedAbove: at.Above, LastSent: at.LastSent,
		Replayed: uint32(replayed), Reconciled: uint32(reconciled),
		HeartbeatIntervalUs: s.cfg.Interval.Microseconds(), HeartbeatTimeoutUs: s.cfg.Timeout.Microseconds(),
		InitialPermits: uint32(min(session.InitialPermits, h.permits)), MaxPermits: uint32(h.permits),
		EffectiveTransport: p.owner.Door, Namespace: id.Namespace, Service: id.Service, Instance: id.Instance,
		Zone: s.cfg.Zone, RuntimeVersion: s.cfg.Version, RuntimeEpoch: s.cfg.Epoch,
	}
	if err := p.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_HelloAck{HelloAck: ack}}); err != nil {
		return errs.From(err)
	}
	if err := p.sendRevoked(); err != nil {
		return errs.From(err)
	}
	if err := p.sendRoots(); err != nil {
		return errs.From(err)
	}
	if err := p.sendRules(true); err != nil {
		return errs.From(err)
	}
	if err := p.release(); err != nil {
		return errs.From(err)
	}
	p.beat = session.NewHeartbeat(s.cfg.Interval, 0).Spread(mrand.Float64)
	p.heard = s.cfg.Clock.Now()
	if resumed {
		h.reachable()
	}
	s.cfg.Log.Info("session", "event", v.String(), "namespace", id.Namespace, "service", id.Service, "instance", id.Instance,
		"session", h.id, "door", p.owner.Door, "peer", p.owner.Addr, "replayed", replayed, "reconciled", reconciled)
	return nil
}

// register puts what the instance declares on the map.
func (p *Port) register(h *held, d *telfordv1.Declaration) *errs.Error {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	id := h.identity()
	owner := registry.Owner{Namespace: id.Namespace, Instance: id.Instance, Service: id.Service, KeyID: id.KeyID, Door: p.owner.Door}
	revision, warnings, err := p.server.cfg.Registry.Register(ctx, owner, catalogpb.DeclarationFromProto(d))
	answer := &telfordv1.Registered{Warnings: catalogpb.WarningsToProto(warnings)}
	if err != nil {
		p.server.cfg.Log.Warn("registration refused", "namespace", id.Namespace, "service", id.Service, "instance", id.Instance, "error", err)
		answer.Refused = errpb.ToProto(errs.From(err))
	} else {
		answer.Revision = catalogpb.RevisionToProto(revision)
		h.mu.Lock()
		h.registered = true
		h.draining = false
		h.mu.Unlock()
		h.reachable()
	}
	if err := p.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Registered{Registered: answer}}); err != nil {
		return errs.From(err)
	}
	return errs.From(p.sendRules(true))
}

func (p *Port) status(h *held, c *telfordv1.StatusChange) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	status := catalogpb.StatusFromProto(c.GetStatus())
	if err := p.server.cfg.Registry.SetStatus(ctx, h.key.namespace, h.key.instance, status, c.GetMessage()); err != nil {
		p.server.cfg.Log.Warn("status change refused", "namespace", h.key.namespace, "instance", h.key.instance, "status", status, "error", err)
	}
}

// goodbye ends the session in order: first of new commands, then as a whole.
func (p *Port) goodbye(m *telfordv1.Goodbye) {
	h := p.held.Load()
	if m.GetDraining() {
		h.mu.Lock()
		h.draining = true
		h.mu.Unlock()
		p.server.cfg.Registry.Leaving(h.key.namespace, h.key.instance)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	h.mu.Lock()
	reason := catalog.Deregistered
	if h.draining {
		reason = catalog.Drained
	}
	registered := h.registered
	current := h.current == p
	h.mu.Unlock()
	if !current && p.retiring() {
		return // the session goes on over its successor
	}
	cause := errs.New(errs.Unavailable, "the instance said goodbye: %s", m.GetReason())
	if registered {
		h.leave(ctx, cause, reason)
	} else {
		p.server.end(h, cause, nil)
	}
}

// String names what happened, for logs.
func (v verdict) String() string {
	return [...]string{"begin", "resume", "handover", "replace", "renew", "refuse"}[v]
}
