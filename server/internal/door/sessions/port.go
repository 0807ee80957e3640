package sessions

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/session"
)

// Transport is one connection of a session. A *link.Conn is one.
type Transport interface {
	session.Transport
	Ping(ctx context.Context) (time.Duration, error)
	LastReceived() time.Time
	GoAway()
	Drain(ctx context.Context) error
	Err() error
}

// Bounds of a connection.
const (
	// maxMail is how many control messages may wait to be handled.
	maxMail = 1024
	// farewell is how long the last words to a connection may take.
	farewell = time.Second
	// storeTimeout bounds one change of the registry.
	storeTimeout = 10 * time.Second
)

// Port is the session's side of one connection: what the door that accepted it gives
// to its transport. It is made before the transport, which needs Handler and Control.
type Port struct {
	server *Server
	owner  Owner
	// t is set by Serve, before anything can be sent.
	t    Transport
	mail chan *telfordv1.ClientMessage
	// faults has the first reason for which the reader gives the connection up.
	faults chan *errs.Error
	held   atomic.Pointer[held]

	// opened is closed once HelloAck was sent: nothing of the session goes before it.
	opened chan struct{}
	once   sync.Once

	// ruled: the rules may be others than the instance was told.
	ruled atomic.Bool
	// rooted: the roots may be others than the instance was told.
	rooted atomic.Bool

	mu       sync.Mutex
	early    [][]byte // control messages of the session that wait for HelloAck
	revoked  []*telfordv1.Revocation
	news     chan struct{}      // has a token when revoked is not empty, or ruled or rooted is set
	watching context.CancelFunc // nil while nothing is watched
	retired  bool
	watched  sync.WaitGroup

	// Of the goroutine of Serve.
	told    told
	sees    sees
	beat    *session.Heartbeat // nil before Hello
	pinging chan time.Duration // the answer to the ping under way; nil when there is none
	pinged  time.Time
	heard   time.Time
}

// Port returns the port of a new connection of owner.
func (s *Server) Port(owner Owner) *Port {
	return &Port{
		server: s, owner: owner, mail: make(chan *telfordv1.ClientMessage, maxMail),
		faults: make(chan *errs.Error, 1), opened: make(chan struct{}), news: make(chan struct{}, 1),
	}
}

// Handler runs the calls of the other end. Before Hello they are refused.
func (p *Port) Handler() message.Handler { return portHandler{p} }

type portHandler struct{ p *Port }

func (h portHandler) handler() (message.Handler, *errs.Error) {
	held := h.p.held.Load()
	if held == nil {
		return nil, errs.New(errs.FailedPrecondition, "a session begins with Hello; calls come after HelloAck").Unstarted()
	}
	return held.peer.Handler(), nil
}

// HandleCall implements message.Handler.
func (h portHandler) HandleCall(ctx context.Context, call *message.Call) *message.Reply {
	handler, e := h.handler()
	if e != nil {
		return &message.Reply{Err: e}
	}
	return handler.HandleCall(ctx, call)
}

// HandleStream implements message.Handler.
func (h portHandler) HandleStream(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
	handler, e := h.handler()
	if e != nil {
		return &message.Reply{Err: e}
	}
	return handler.HandleStream(ctx, call, out)
}

// Payload takes in one marshalled ClientMessage; see Message. An undecodable one ends
// the connection.
func (p *Port) Payload(payload []byte) {
	m := new(telfordv1.ClientMessage)
	if err := proto.Unmarshal(payload, m); err != nil {
		p.fault(errs.New(errs.InvalidArgument, "a control message of %d bytes cannot be decoded: %w", len(payload), err))
		return
	}
	p.Message(m)
}

// Message takes in one control message, on the goroutine that reads: it never waits.
func (p *Port) Message(m *telfordv1.ClientMessage) {
	// What only moves the books of the peer need not stand in line.
	if held := p.held.Load(); held != nil {
		switch v := m.GetMessage().(type) {
		case *telfordv1.ClientMessage_Ack:
			held.peer.OnAck(v.Ack)
			return
		case *telfordv1.ClientMessage_Cancel:
			held.peer.OnCancel(v.Cancel.GetSeq())
			return
		}
	}
	select {
	case p.mail <- m:
	default:
		p.fault(errs.New(errs.ResourceExhausted, "%d control messages wait to be handled; send fewer", maxMail))
	}
}

// fault gives the connection up, from the goroutine that reads.
func (p *Port) fault(e *errs.Error) {
	select {
	case p.faults <- e:
	default:
	}
}

// Serve carries the connection until it ends. It is called once.
func (p *Port) Serve(t Transport) {
	s := p.server
	p.t = t
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		t.Close(errs.New(errs.Unavailable, "the runtime is stopping").After(retryStopping))
		return
	}
	s.ports[p] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()

	p.run()

	p.stopWatching()
	p.watched.Wait()
	if h := p.held.Load(); h != nil {
		s.cfg.Log.Info("connection of a session ended", "namespace", h.key.namespace, "instance", h.key.instance, "session", h.id, "cause", t.Err())
		h.lost(p, t.Err())
	}
	s.mu.Lock()
	delete(s.ports, p)
	s.mu.Unlock()
	p.once.Do(func() { close(p.opened) }) // nobody may wait for what will not come
}

// run handles what arrives and what is due, until the connection ends.
func (p *Port) run() {
	clk := p.server.cfg.Clock
	p.heard = clk.Now()
	timer := clk.NewTimer(p.server.cfg.HelloTimeout)
	defer func() { timer.Stop() }()
	for {
		select {
		case <-p.t.Done():
			p.settle()
			return
		case e := <-p.faults:
			p.t.Close(e)
		case m := <-p.mail:
			before := p.beat
			if e := p.handle(m); e != nil {
				p.t.Close(e)
				return
			}
			if before == nil && p.beat != nil {
				timer.Stop()
				timer = clk.NewTimer(p.beat.Next())
			}
		case rtt := <-p.pinging:
			p.ponged(rtt)
			p.rearm(&timer)
		case <-p.news:
			p.sendNews()
		case <-timer.C():
			if p.beat == nil {
				p.t.Close(errs.New(errs.DeadlineExceeded, "no Hello came within %s of the connection", p.server.cfg.HelloTimeout))
				return
			}
			p.tick()
			p.rearm(&timer)
		}
	}
}

func (p *Port) rearm(timer *clock.Timer) {
	(*timer).Stop()
	*timer = p.server.cfg.Clock.NewTimer(p.due())
}

// settle handles, at the end of a connection, what had arrived before it: a Goodbye is
// often the last word.
func (p *Port) settle() {
	for {
		select {
		case m := <-p.mail:
			if v, ok := m.GetMessage().(*telfordv1.ClientMessage_Goodbye); ok && p.held.Load() != nil {
				p.goodbye(v.Goodbye)
			}
		default:
			return
		}
	}
}

// say sends one message, outside of the order of the session. It waits while the
// connection's queue is full.
func (p *Port) say(m *telfordv1.ServerMessage) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return errs.New(errs.Internal, "encode a control message: %w", err)
	}
	return p.t.Control(b)
}

// fence tells the other end that it is fenced, for as long as that may take, and then
// closes the connection.
func (p *Port) fence(cause *errs.Error) {
	p.lastWords(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Fenced{Fenced: &telfordv1.Fenced{Reason: cause.Message}}}, cause)
}

// lastWords sends a message and closes the connection with cause.
func (p *Port) lastWords(m *telfordv1.ServerMessage, cause *errs.Error) {
	p.server.goRun(func() {
		cut := time.AfterFunc(farewell, func() { p.t.Close(cause) })
		defer cut.Stop()
		_ = p.say(m) // the connection may be gone, which is as good
		p.t.Close(cause)
	})
}

// The Port is what the peer of the session sees as its transport: it holds everything
// back until HelloAck was sent.
var _ session.Transport = (*Port)(nil)

// Call implements message.Link.
func (p *Port) Call(ctx context.Context, call *message.Call) (*message.Reply, error) {
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	return p.t.Call(ctx, call)
}

// Stream implements message.Link.
func (p *Port) Stream(ctx context.Context, call *message.Call) (message.Stream, error) {
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	return p.t.Stream(ctx, call)
}

// open waits until HelloAck was sent.
func (p *Port) open(ctx context.Context) error {
	select {
	case <-p.opened:
		return nil
	default:
	}
	select {
	case <-p.opened:
		return nil
	case <-ctx.Done():
		return errs.From(ctx.Err()).Unstarted()
	case <-p.t.Done():
		return errs.New(errs.Unavailable, "the connection ended before the session began").Unstarted().WithCause(link.ErrEnded)
	}
}

// Control implements session.Transport.
func (p *Port) Control(payload []byte) error {
	p.mu.Lock()
	select {
	case <-p.opened:
		p.mu.Unlock()
		return p.t.Control(payload)
	default:
	}
	p.early = append(p.early, payload)
	p.mu.Unlock()
	return nil
}

// release lets the session use the connection.
func (p *Port) release() error {
	for {
		p.mu.Lock()
		early := p.early
		p.early = nil
		if len(early) == 0 {
			p.once.Do(func() { close(p.opened) })
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		for _, b := range early {
			if err := p.t.Control(b); err != nil {
				return err
			}
		}
	}
}

// Close implements session.Transport.
func (p *Port) Close(cause error) { p.t.Close(cause) }

// Done implements session.Transport.
func (p *Port) Done() <-chan struct{} { return p.t.Done() }
