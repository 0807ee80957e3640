package client

import (
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/session"
)

// drive connects, serves the connection until it ends, and connects again, until the
// session has ended for good.
func (s *Session) drive() {
	defer close(s.done)
	backoff := s.opt.Backoff
	for {
		p, err := s.attempt()
		if err == nil {
			began := s.opt.Clock.Now()
			err = s.serve(p)
			// A connection that ends as soon as it is there is no success to begin anew
			// from: the runtime may be ending them all.
			if s.registered && (p.worked || s.opt.Clock.Now().Sub(began) >= proven) {
				backoff.Reset()
			}
		}
		s.setUp(false)
		s.hearing.lost(err)
		if s.ctx.Err() != nil || s.isClosing() {
			s.end(ReasonStopped, errStopped)
			return
		}
		if reason := s.final(err); reason != "" {
			s.end(reason, err)
			return
		}
		s.move(session.Missed)
		delay, attempt, ok := s.pause(&backoff, err)
		if !ok {
			s.end(ReasonExhausted, err)
			return
		}
		s.note(err)
		s.opt.Log.Warn("the runtime is away", "server", s.opt.Server, "attempt", attempt, "delay", delay, "cause", err)
		s.opt.Events.Reconnecting(attempt, err, delay)
		t := s.opt.Clock.NewTimer(delay)
		select {
		case <-t.C():
		case <-s.ctx.Done():
			t.Stop()
			s.end(ReasonStopped, errStopped)
			return
		}
		s.move(session.Retry)
	}
}

// proven is how long a connection that goes on with a session has to last to be a success.
const proven = time.Second

// pause is how long to wait after a failure, and which attempt it was; false when there
// is none left.
func (s *Session) pause(backoff *session.Backoff, err error) (delay time.Duration, attempt int, ok bool) {
	if after := errs.From(err).RetryAfter; after > 0 {
		delay, attempt = backoff.Asked(after)
		return delay, attempt, true
	}
	return backoff.Next()
}

// note keeps the last failure, for a Start that gives up.
func (s *Session) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// end records why the session is over.
func (s *Session) end(reason string, cause error) {
	s.hearing.stop()
	s.mu.Lock()
	s.err = cause
	s.current = nil
	stopped := s.draining && reason == ReasonStopped
	s.mu.Unlock()
	if reason == ReasonFenced {
		s.move(session.FenceOff)
	} else {
		s.move(session.Close)
	}
	s.peer.Close(cause)
	if !stopped {
		s.opt.Log.Error("the session has ended", "reason", reason, "cause", cause)
	}
	s.opt.Events.Disconnected(reason, cause)
}

// final tells failures that no further attempt can mend; "" for the others.
func (s *Session) final(err error) string {
	e := errs.From(err)
	if reason := e.Meta[disconnect]; reason != "" {
		return reason
	}
	switch e.Code {
	case errs.Terminal:
		return ReasonFenced
	case errs.Unauthenticated, errs.PermissionDenied:
		return ReasonError
	case errs.InvalidArgument, errs.FailedPrecondition, errs.AlreadyExists:
		// A mistake in what this process says is found at the first start. Later it is
		// the runtime that has changed, and may change back.
		select {
		case <-s.ready:
		default:
			return ReasonError
		}
	}
	return ""
}

// attempt makes one connection with a session on it.
func (s *Session) attempt() (*port, error) {
	s.mu.Lock()
	token := s.token
	s.mu.Unlock()
	fresh := false
	if !s.usable() {
		if err := s.provision(s.ctx); err != nil {
			return nil, err
		}
		fresh = true
	}
	p, err := s.connect(s.ctx, token)
	if err != nil && !fresh && s.opt.Key != nil && errs.CodeOf(err) == errs.Unauthenticated {
		// The certificate is no longer believed; the key may be.
		if perr := s.provision(s.ctx); perr != nil {
			return nil, perr
		}
		p, err = s.connect(s.ctx, token)
	}
	if err != nil {
		return nil, err
	}
	s.move(session.Dialed)
	return p, nil
}

// adoptPort makes p the connection that carries the session.
func (s *Session) adoptPort(p *port) {
	ack := p.ack
	s.mu.Lock()
	s.current, s.token = p, ack.GetResumeToken()
	s.info = Info{
		SessionID: ack.GetSessionId(), Zone: ack.GetZone(), RuntimeVersion: ack.GetRuntimeVersion(), Transport: ack.GetEffectiveTransport(),
		Namespace: ack.GetNamespace(), Service: ack.GetService(), Instance: ack.GetInstance(),
		HeartbeatInterval: micros(ack.GetHeartbeatIntervalUs()), HeartbeatTimeout: micros(ack.GetHeartbeatTimeoutUs()),
		Permits: int(ack.GetInitialPermits()),
	}
	s.mu.Unlock()
	replayed, reconciled := s.peer.Attach(p.conn, session.Position{
		Floor: ack.GetReceivedFloor(), Above: ack.GetReceivedAbove(), LastSent: ack.GetLastSent(),
	}, ack.GetResumed() || ack.GetHandover())
	close(p.adopted)
	s.move(session.Welcomed)
	s.hearing.connected()
	s.setUp(true)
	s.opt.Log.Info("connected to the runtime", "server", s.opt.Server, "session", ack.GetSessionId(), "instance", ack.GetInstance(),
		"resumed", ack.GetResumed(), "handover", ack.GetHandover(), "replayed", replayed, "reconciled", reconciled)
	s.opt.Events.Connected(ack.GetInstance())
}

// register describes the instance to the runtime.
func (s *Session) register(p *port) error {
	d, err := s.opt.Declaration(p.localAddr())
	if err != nil {
		return err
	}
	s.mu.Lock()
	d.Status, d.StatusMessage = s.status, s.statusMsg
	s.mu.Unlock()
	p.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Register{Register: catalogpb.DeclarationToProto(d)}})
	return nil
}

// watch asks for the services of interest. Without resume, or when they are others than
// the runtime last answered for, the answer is a snapshot. Where none are of interest
// there is no answer, and it reports false.
//
// A snapshot does not say which request it answers, so there is one at a time: what is
// wanted meanwhile is asked for when the answer is there.
func (s *Session) watch(p *port, resume bool) bool {
	if p.asking {
		p.askAgain = true
		return true
	}
	services, answered := s.opt.View.Asked()
	if len(services) == 0 {
		return false
	}
	w := &telfordv1.WatchRequest{Services: services}
	if resume && answered {
		if rev := s.opt.View.Snapshot().Revision; rev.Epoch != 0 {
			w.After = catalogpb.RevisionToProto(rev)
		}
	}
	p.asking = w.GetAfter() == nil
	p.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Watch{Watch: w}})
	return true
}

// answered notes that a snapshot has come, and asks for what was wanted meanwhile.
func (s *Session) answered(p *port) {
	p.asking = false
	if p.askAgain {
		p.askAgain = false
		s.watch(p, false)
	}
}

// serve carries the session on p, and on the ports that take its place, until the
// connection is lost.
func (s *Session) serve(p *port) error {
	s.adoptPort(p)
	// A session that is new, or was cut before the runtime had confirmed the
	// registration, is not on the map.
	if !p.ack.GetResumed() && !p.ack.GetHandover() {
		s.registered = false
	}
	if !s.registered {
		if err := s.register(p); err != nil {
			s.drop(p, err)
			return err
		}
	} else {
		s.repeatStatus(p)
	}
	// A view that was never answered wants a snapshot, also in a resumed session.
	seen := !s.watch(p, true)
	select {
	case <-s.ready:
		seen = true
	default:
	}

	beat := session.NewHeartbeat(micros(p.ack.GetHeartbeatIntervalUs()), 0).Spread(rand.Float64)
	timer := s.opt.Clock.NewTimer(beat.Next())
	defer func() { timer.Stop() }()
	report := s.opt.Clock.NewTimer(reportIn())
	defer func() { report.Stop() }()
	renew := s.renewTimer(p, false)
	defer func() { renew.stop() }()
	pinging := false
	var turning *rotation // the renewal under way
	defer func() { turning.end() }()
	// take makes next the connection that carries the session.
	take := func(next *port) error {
		turning.end()
		turning = nil
		renew.stop()
		s.wantLater()
		renew = s.renewTimer(next, false)
		old := p
		p = next
		pinging = false
		s.adoptPort(p)
		if !p.ack.GetHandover() && !p.ack.GetResumed() {
			s.registered = false
		}
		if !s.registered {
			if err := s.register(p); err != nil {
				s.drop(p, err)
				return err
			}
		}
		s.watch(p, true)
		s.retire(old)
		return nil
	}
	for {
		select {
		case <-s.ctx.Done():
			s.drop(p, errStopped)
			return errStopped
		case err := <-p.fault:
			s.drop(p, err)
			return ended(err)
		case <-p.conn.Done():
			if err := s.rest(p); err != nil {
				s.peer.Detach(p.conn, err)
				return err
			}
			err := p.conn.Err()
			s.peer.Detach(p.conn, err)
			// The runtime lets go of a connection when it has its successor, which may be
			// known there before it is here.
			next := s.awaitSuccessor(turning)
			if next == nil {
				return ended(err)
			}
			if err := take(next); err != nil {
				return err
			}
		case m := <-p.mail:
			switch v := m.GetMessage().(type) {
			case *telfordv1.ServerMessage_Registered:
				if refused := v.Registered.GetRefused(); refused.GetCode() != "" {
					err := errpb.FromProto(refused).In("sdk", "register "+s.opt.Service)
					if !s.registered {
						s.drop(p, err)
						return err
					}
					s.opt.Log.Error("a declaration was refused", "error", err)
				}
				s.registered, p.worked = true, true
				s.moved(p)
				if w := catalogpb.WarningsFromProto(v.Registered.GetWarnings()); len(w) > 0 {
					s.opt.Events.Warnings(w)
					s.warnings = w
				}
			case *telfordv1.ServerMessage_Rules:
				w := catalogpb.WarningsFromProto(v.Rules.GetWarnings())
				s.opt.Events.Violations(w)
				if s.registered {
					s.warnings = w
				}
			case *telfordv1.ServerMessage_Watch:
				if s.update(p, v.Watch) {
					seen = true
				}
			case *telfordv1.ServerMessage_Roots:
				s.rooted(v.Roots)
				if renew.timer != nil { // else a renewal is under way
					renew.stop()
					renew = s.renewTimer(p, false)
				}
			case *telfordv1.ServerMessage_Drain:
				// Not dropped: what runs finishes on this connection.
				return s.drained(p, v.Drain)
			default:
				if err := s.handle(p, m); err != nil {
					s.drop(p, err)
					return err
				}
			}
			if s.registered && seen && s.hasRules() {
				if err := s.markReady(); err != nil {
					s.bye(p, err.Message)
					s.drop(p, err)
					return err
				}
			}
		case <-s.rewant:
			s.watch(p, false)
		case <-report.C():
			s.report(p)
			report = s.opt.Clock.NewTimer(reportIn())
		case r := <-s.pongs:
			if r.p != p {
				break
			}
			pinging = false
			if r.err == nil {
				beat.OnPong(r.rtt)
				s.moved(p)
			} else if beat.OnMiss() {
				err := errs.New(errs.Unavailable, "the runtime at %s has been silent since %s", s.opt.Server, p.conn.LastReceived().UTC().Format(time.RFC3339))
				s.drop(p, err)
				return err
			}
			timer.Stop()
			timer = s.opt.Clock.NewTimer(s.nextBeat(beat, p))
		case <-timer.C():
			s.peer.SendAck()
			if err := s.deaf(p); err != nil {
				s.drop(p, err)
				return err
			}
			switch {
			case pinging:
			case s.opt.Clock.Now().Sub(p.conn.LastReceived()) >= beat.Next():
				pinging = true
				s.ping(p, beat.PongTimeout())
			default:
				beat.OnReceived()
				s.moved(p)
			}
			timer = s.opt.Clock.NewTimer(s.nextBeat(beat, p))
		case <-renew.c():
			if !renew.due() {
				break
			}
			renew = renewal{}
			turning = s.rotate(p)
		case next := <-turning.handed():
			turning.taken = true
			if next != nil {
				if err := take(next); err != nil {
					return err
				}
				break
			}
			turning.end()
			turning = nil
			renew = s.renewTimer(p, true)
		}
	}
}

// ended makes the end of a connection something to come back from, unless the runtime
// has said that there is no coming back.
func ended(err error) error {
	e := errs.From(err)
	if e == nil {
		return errs.New(errs.Unavailable, "the connection has ended")
	}
	switch e.Code {
	case errs.PermissionDenied, errs.Terminal, errs.Unavailable:
		return e
	}
	c := *e
	c.Code, c.GRPCCode = errs.Unavailable, codes.Unavailable
	return &c
}

// markReady ends the start, once. It fails when declarations are forbidden and that is
// not to be put up with.
func (s *Session) markReady() *errs.Error {
	select {
	case <-s.ready:
		return nil
	default:
	}
	if s.opt.FailOnViolation {
		if err := violation(s.warnings); err != nil {
			return err.In("sdk", "register "+s.opt.Service)
		}
	}
	s.warnings = nil
	s.note(nil)
	close(s.ready)
	return nil
}

func (s *Session) repeatStatus(p *port) {
	s.mu.Lock()
	status, text := s.status, s.statusMsg
	s.mu.Unlock()
	if status != catalog.OK || text != "" {
		p.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Status{Status: &telfordv1.StatusChange{
			Status: catalogpb.StatusToProto(status), Message: text,
		}}})
	}
}

// drop ends a connection from this side.
func (s *Session) drop(p *port, cause error) {
	s.setUp(false)
	s.peer.Detach(p.conn, cause)
	p.conn.Close(cause)
}
