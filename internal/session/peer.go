package session

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
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

func cancelCall(ctx context.Context) {
	if c, ok := ctx.(interface{ CancelCall() }); ok {
		c.CancelCall()
	}
}
