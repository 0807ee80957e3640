package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// Transport carries a session for as long as it lives. A *link.Conn is one. Errors of
// its calls that are its own fault have link.ErrEnded in their chain.
type Transport interface {
	message.Link
	// Control sends one marshalled ClientMessage or ServerMessage.
	Control(payload []byte) error
	Close(cause error)
	Done() <-chan struct{}
}

// PeerOptions say how one end of a session behaves.
type PeerOptions struct {
	// Handler runs the commands of the other end.
	Handler message.Handler
	// Client: this end speaks ClientMessage, else ServerMessage.
	Client bool
	// NoWait: a call that cannot be sent now is refused, not started, instead of waiting
	// for the session to come back.
	NoWait bool
	// Permits is how many commands of this end may run at once; 0 is no bound.
	Permits int
	// Window is how long calls wait for a cut session to be resumed; 0 means 60 s.
	Window time.Duration
	Clock  clock.Clock
	Log    *slog.Logger
	// OnActivity, if set, is told when the first command of the other end begins and
	// when the last one ends. It must not block.
	OnActivity func(active bool)
}

// Peer is one end of a session over all its connections. Calls made through it survive
// a cut: a command whose connection is lost is sent again, under the same number, on
// the next one, and an end that has received a number before answers it without running
// it again. So each call is answered exactly once and executed at most once. A Peer is
// a message.Link, safe for concurrent use.
type Peer struct {
	opt PeerOptions

	mu sync.Mutex
	// transport carries new commands; nil while the session is cut.
	transport Transport
	// changed is closed and replaced whenever transport changes or the last call ends.
	changed chan struct{}
	expiry  clock.Timer
	cause   error // why the session is cut
	closed  *errs.Error

	// What this end sends.
	lastSent uint64
	commands map[uint64]*command
	heard    time.Time // when the other end last answered or acknowledged a command
	done     set       // results that have arrived, or that nobody waits for
	unacked  int       // results since the last Ack was made
	bytes    int       // and their size
	acked    uint64
	cancels  []uint64 // given up while the session was cut
	permits  int
	running  int
	queue    []chan struct{}

	// What this end receives.
	received  set
	executing map[uint64]*execution
	kept      map[uint64]*message.Reply
	order     []uint64 // of kept, oldest first; may name what is gone
	keptBytes int
	// lastFloor is what the last Ack said of received.
	lastFloor uint64
}

// command is a call of this end that was given a number.
type command struct {
	sent  time.Time
	maybe bool // some connection may have carried it
	acked bool
	err   *errs.Error // set when the session that knew the number was lost
}

// execution is a command of the other end that runs here.
type execution struct {
	done  chan struct{}
	reply *message.Reply
	ctx   context.Context
}

// NewPeer returns an end that has no transport yet; calls wait for the first Attach.
func NewPeer(opt PeerOptions) *Peer {
	if opt.Window <= 0 {
		opt.Window = Window
	}
	if opt.Clock == nil {
		opt.Clock = clock.Real()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Peer{
		opt: opt, permits: opt.Permits, changed: make(chan struct{}),
		commands: make(map[uint64]*command), executing: make(map[uint64]*execution), kept: make(map[uint64]*message.Reply),
	}
}

// Position is what to say in Hello or HelloAck.
func (p *Peer) Position() Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Position{Floor: p.received.floor, Above: p.received.above(), LastSent: p.lastSent}
}

// Attach makes t carry the session from now on. theirs is the position that the other
// end stated; resumed tells whether it still knows this session. It returns how many
// commands are sent again because their connection was lost, and how many results the
// other end may ask for again. A transport attached before goes on delivering what it
// has begun.
func (p *Peer) Attach(t Transport, theirs Position, resumed bool) (replayed, reconciled int) {
	p.mu.Lock()
	if p.closed != nil {
		p.mu.Unlock()
		return 0, 0
	}
	if !resumed {
		p.forget(errs.New(errs.Unavailable, "the session was lost while the call was under way, so that it is unknown whether it ran"))
	} else if p.transport == nil {
		replayed = len(p.commands)
	}
	for seq := range p.kept {
		if seq <= theirs.LastSent {
			reconciled++
		}
	}
	cancels := p.cancels
	p.cancels = nil
	p.transport = t
	p.cause = nil
	if p.expiry != nil {
		p.expiry.Stop()
		p.expiry = nil
	}
	p.announce()
	p.mu.Unlock()
	for _, seq := range cancels {
		p.sendCancel(t, seq)
	}
	return replayed, reconciled
}

// announce wakes, with mu held, all who wait for a change.
func (p *Peer) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// forget begins a new session, with mu held: numbers start anew, what may have been
// sent fails with e.
func (p *Peer) forget(e *errs.Error) {
	for _, cmd := range p.commands {
		cmd.err = e
	}
	clear(p.commands)
	clear(p.kept)
	p.order, p.keptBytes, p.cancels = nil, 0, nil
	p.lastSent, p.unacked, p.bytes, p.acked, p.lastFloor = 0, 0, 0, 0, 0
	p.done, p.received = set{}, set{}
	// What still runs belongs to the session that was lost: nobody waits for it.
	for _, ex := range p.executing {
		cancelCall(ex.ctx)
	}
	p.executing = make(map[uint64]*execution)
}

// Detach tells that t was lost. If it carried the session, calls now wait for the next
// Attach, for at most the window.
func (p *Peer) Detach(t Transport, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.transport != t || p.closed != nil {
		return
	}
	p.transport = nil
	p.cause = cause
	p.announce()
	var timer clock.Timer
	timer = p.opt.Clock.AfterFunc(p.opt.Window, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.transport == nil && p.closed == nil && p.expiry == timer {
			p.forget(errs.New(errs.Unavailable, "the session was cut for over %s while the call was under way, so that it is unknown whether it ran", p.opt.Window))
			p.announce()
		}
	})
	p.expiry = timer
}

// Attached reports whether a transport carries the session now.
func (p *Peer) Attached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.transport != nil
}

// Close ends the session for good; what waits is answered with err, as unavailable.
func (p *Peer) Close(err error) {
	p.mu.Lock()
	if p.closed != nil {
		p.mu.Unlock()
		return
	}
	p.closed = errs.New(errs.Unavailable, "the session has ended: %v", err)
	p.closed.Component = "session"
	p.forget(p.closed)
	t := p.transport
	p.transport = nil
	if p.expiry != nil {
		p.expiry.Stop()
	}
	p.announce()
	p.mu.Unlock()
	if t != nil {
		t.Close(err)
	}
}

// InFlight is the number of commands of the other end that run here, and of this end
// that wait for their answer.
func (p *Peer) InFlight() (in, out int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.executing), p.running
}

// Drained waits until no command runs in either direction, or ctx ends.
func (p *Peer) Drained(ctx context.Context) error {
	for {
		p.mu.Lock()
		over := p.closed != nil || len(p.executing) == 0 && p.running == 0
		changed := p.changed
		p.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// SetPermits changes how many commands of this end may run at once; 0 is no bound.
func (p *Peer) SetPermits(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.permits = n
	p.admitQueued()
}

// Permits is how many commands of this end may run at once; 0 is no bound.
func (p *Peer) Permits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.permits
}

// admitQueued gives permits, with mu held, to those who wait in line.
func (p *Peer) admitQueued() {
	for len(p.queue) > 0 && (p.permits == 0 || p.running < p.permits) {
		p.running++
		close(p.queue[0])
		p.queue = p.queue[1:]
	}
}

// acquire takes a permit, waiting in line for it.
func (p *Peer) acquire(ctx context.Context, method string) error {
	p.mu.Lock()
	switch {
	case p.closed != nil:
		defer p.mu.Unlock()
		return p.closed.Unstarted()
	case p.permits == 0 || p.running < p.permits:
		p.running++
		p.mu.Unlock()
		return nil
	case len(p.queue) >= maxQueued:
		defer p.mu.Unlock()
		return errs.New(errs.ResourceExhausted, "%d commands run on the session and %d wait", p.permits, len(p.queue)).In("session", "call "+method).Unstarted()
	}
	turn := make(chan struct{})
	p.queue = append(p.queue, turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	for i, q := range p.queue {
		if q == turn {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.mu.Unlock()
			return errs.From(ctx.Err()).In("session", "call "+method).Unstarted()
		}
	}
	p.mu.Unlock()
	p.release() // the turn came at the same moment
	return errs.From(ctx.Err()).In("session", "call "+method).Unstarted()
}

func (p *Peer) release() {
	p.mu.Lock()
	p.running--
	p.admitQueued()
	if p.running == 0 {
		p.announce()
	}
	p.mu.Unlock()
}

// Call runs a unary command on the other end, over as many connections as it takes.
func (p *Peer) Call(ctx context.Context, m *message.Call) (*message.Reply, error) {
	if err := p.acquire(ctx, m.Method); err != nil {
		return nil, err
	}
	defer p.release()
	if !m.Deadline.IsZero() {
		// Waiting for another connection must end with the deadline as well; a link sees
		// to it by itself, so the timer is made only when there is a wait.
		if d, ok := ctx.Deadline(); ok && !m.Deadline.Before(d) {
			m = withoutDeadline(m)
		}
	}
	call := *m
	var cmd *command
	for {
		t, failed := p.begin(ctx, &call, &cmd)
		if failed != nil {
			return nil, failed
		}
		reply, err := t.Call(ctx, &call)
		if err == nil || !errors.Is(err, link.ErrEnded) {
			p.finish(call.Seq, cmd, reply, ctx.Err() == nil)
			return reply, err
		}
		p.Detach(t, err)
		var e *errs.Error
		if unsent := errors.As(err, &e) && e.NotStarted; !unsent {
			p.mu.Lock()
			cmd.maybe = true
			p.mu.Unlock()
		} else if p.opt.NoWait && !cmd.maybe {
			p.finish(call.Seq, cmd, nil, false)
			return nil, err
		}
	}
}

func withoutDeadline(m *message.Call) *message.Call {
	c := *m
	c.Deadline = time.Time{}
	return &c
}

// begin waits for a transport and gives the call a number if it has none.
func (p *Peer) begin(ctx context.Context, call *message.Call, cmd **command) (Transport, *errs.Error) {
	for {
		t, changed, failed := p.offer(call, cmd)
		if t != nil || failed != nil {
			return t, failed
		}
		if err := wait(ctx, call.Deadline, changed); err != nil {
			return nil, p.giveUp(call, *cmd, errs.CodeOf(err))
		}
	}
}

// offer returns the transport to send the call on, or what to wait for, or why it has
// failed.
func (p *Peer) offer(call *message.Call, cmd **command) (Transport, <-chan struct{}, *errs.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := *cmd
	if c != nil && c.err != nil {
		if c.maybe {
			return nil, nil, c.err
		}
		// No connection ever carried it: it may start in the next session.
		*cmd, c = nil, nil
	}
	switch {
	case p.closed != nil && c != nil && c.maybe:
		return nil, nil, p.closed
	case p.closed != nil:
		return nil, nil, p.closed.Unstarted()
	case p.transport == nil && p.opt.NoWait && c == nil:
		return nil, nil, p.cut(errs.Unavailable, call).Unstarted()
	case p.transport == nil:
		return nil, p.changed, nil
	case c == nil:
		p.lastSent++
		call.Seq = p.lastSent
		*cmd = &command{sent: p.opt.Clock.Now()}
		p.commands[call.Seq] = *cmd
	}
	return p.transport, nil, nil
}

// giveUp takes a call off the books whose time has passed while the session was cut.
func (p *Peer) giveUp(call *message.Call, c *command, code errs.Code) *errs.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.cut(code, call)
	if c == nil {
		return e.Unstarted()
	}
	if p.commands[call.Seq] == c {
		delete(p.commands, call.Seq)
		p.settle(call.Seq, nil)
		if c.maybe && len(p.cancels) < maxQueued {
			p.cancels = append(p.cancels, call.Seq)
		}
	}
	if !c.maybe {
		e = e.Unstarted()
	}
	return e
}

// wait waits for changed, for the end of ctx, or for the deadline.
func wait(ctx context.Context, deadline time.Time, changed <-chan struct{}) error {
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late:
		return context.DeadlineExceeded
	}
}

// cut is the error of a call that the session could not carry, with mu held.
func (p *Peer) cut(code errs.Code, call *message.Call) *errs.Error {
	e := errs.New(code, "the session is not connected")
	if p.cause != nil {
		e = errs.New(code, "the session is not connected: %v", p.cause)
	}
	return e.In("session", "call "+call.Method)
}

// finish takes a completed command off the books; answered says that the other end has
// completed it.
func (p *Peer) finish(seq uint64, cmd *command, reply *message.Reply, answered bool) {
	p.mu.Lock()
	if answered {
		p.heard = p.opt.Clock.Now()
	}
	if p.commands[seq] != cmd {
		p.mu.Unlock()
		return
	}
	delete(p.commands, seq)
	ack := p.settle(seq, reply)
	p.mu.Unlock()
	if ack {
		p.SendAck()
	}
}

// settle counts a result as arrived, with mu held, and reports whether it is time to
// acknowledge.
func (p *Peer) settle(seq uint64, reply *message.Reply) bool {
	p.done.add(seq)
	p.unacked++
	if reply != nil {
		p.bytes += len(reply.Body)
	}
	return p.unacked >= ackEvery || p.bytes >= KeptBytes/4
}

// Stream runs a streaming command. It lives and dies with the connection it began on.
func (p *Peer) Stream(ctx context.Context, m *message.Call) (message.Stream, error) {
	if err := p.acquire(ctx, m.Method); err != nil {
		return nil, err
	}
	for {
		p.mu.Lock()
		t, changed, closed := p.transport, p.changed, p.closed
		var unsent *errs.Error
		switch {
		case closed != nil:
			unsent = closed.Unstarted()
		case t == nil && p.opt.NoWait:
			unsent = p.cut(errs.Unavailable, m).Unstarted()
		}
		p.mu.Unlock()
		if unsent == nil && t == nil {
			if err := wait(ctx, m.Deadline, changed); err == nil {
				continue
			} else {
				p.mu.Lock()
				unsent = p.cut(errs.CodeOf(err), m).Unstarted()
				p.mu.Unlock()
			}
		}
		if unsent != nil {
			p.release()
			return nil, unsent
		}
		s, err := t.Stream(ctx, m)
		if err == nil {
			return &countedStream{Stream: s, release: sync.OnceFunc(p.release)}, nil
		}
		if errors.Is(err, link.ErrEnded) {
			p.Detach(t, err)
			var e *errs.Error
			if errors.As(err, &e) && e.NotStarted && !p.opt.NoWait {
				continue
			}
		}
		p.release()
		return nil, err
	}
}

// countedStream gives its permit back at its end.
type countedStream struct {
	message.Stream
	release func()
}

// Recv implements message.Stream.
func (s *countedStream) Recv() ([]byte, error) {
	b, err := s.Stream.Recv()
	if err != nil {
		s.release()
	}
	return b, err
}

// Close implements message.Stream.
func (s *countedStream) Close() {
	s.Stream.Close()
	s.release()
}

func cancelCall(ctx context.Context) {
	if c, ok := ctx.(interface{ CancelCall() }); ok {
		c.CancelCall()
	}
}
