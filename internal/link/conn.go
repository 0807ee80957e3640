package link

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/errs"
)

// Conn is one multiplexed connection. Both ends may call. It is a message.Link, safe
// for concurrent use.
type Conn struct {
	nc     net.Conn
	opt    Options
	in     *frameReader
	done   chan struct{}
	parity uint64 // of the streams that this end opens
	// lastRead is when something last arrived, in nanoseconds of the clock.
	lastRead atomic.Int64
	rtt      atomic.Int64

	controlMu sync.Mutex // one control message at a time

	// mu guards everything below. Nothing is called with it held but the codec.
	mu sync.Mutex
	// out is what is queued to be written, ctl what goes before it. base counts the
	// bytes of out that were ever handed to a write.
	out, ctl         []byte
	spareOut, spareC []byte
	base             uint64
	writing          bool
	gather           bool // others may be about to write
	// rest is closed when the writer has nothing left; nil while nobody waits for that.
	rest          chan struct{}
	writeDeadline time.Time
	// space is closed when the queue has shrunk or credit has come; nil while nobody waits.
	space      chan struct{}
	names      nameWriter
	nextStream uint64
	calls      map[uint64]*call
	freeCalls  []*call
	credit     int // bytes of bodies that may be sent
	peerGone   bool
	goAwaySent bool
	goAwayAck  bool
	pings      map[uint64]chan struct{}
	nextPing   uint64
	err        error // why the connection ended; nil while it lives

	inbound map[uint64]*inbound
	free    []*inbound
	running int
	waiting []*inbound
	idle    []*worker
	// quiet is closed when the connection is draining and nothing runs; see Drain. From
	// then on, drained, it takes no call from this end either.
	quiet   chan struct{}
	drained bool

	// Of the reader alone.
	peerNames   nameReader
	lastInbound uint64
	assembly    atomic.Int64 // bytes of incomplete bodies held
	recv        window
	control     []byte
	ready       *inbound // admitted, and not yet given to a goroutine
	answered    bool     // the one caller was woken since the last read
}

func newConn(nc net.Conn, opt Options, dialer bool) *Conn {
	c := &Conn{
		nc: nc, opt: opt.withDefaults(), in: newFrameReader(nc), done: make(chan struct{}),
		calls: make(map[uint64]*call), inbound: make(map[uint64]*inbound),
		credit: ConnWindow, recv: newWindow(ConnWindow), nextStream: 2,
	}
	if dialer {
		c.nextStream, c.parity = 1, 1
	}
	c.lastRead.Store(c.opt.Clock.Now().UnixNano())
	return c
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection has ended; nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// LastReceived is when the other end was last heard of.
func (c *Conn) LastReceived() time.Time { return time.Unix(0, c.lastRead.Load()) }

// NetConn is the connection below.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Outstanding is the number of calls of this end that wait for their answer.
func (c *Conn) Outstanding() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

// Inbound is the number of calls of the other end that run or wait here.
func (c *Conn) Inbound() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.inbound)
}

// lead reports, with mu held, whether the caller has become the writer and must call
// flush once it has released mu.
func (c *Conn) lead() bool {
	if c.writing || c.err != nil {
		return false
	}
	c.writing = true
	c.gather = len(c.calls)+c.running > 1
	return true
}

// flush writes what is queued, for at most rounds writes; then a goroutine takes over,
// so that no caller writes for others for long. It ends with the queue or the Conn.
func (c *Conn) flush(rounds int) {
	for i := 0; ; i++ {
		c.mu.Lock()
		// Whoever is about to queue something gets the chance to share the write: a
		// system call costs more than several turns of the scheduler.
		for turns := 0; c.gather && turns < maxTurns; turns++ {
			before := len(c.out)
			c.mu.Unlock()
			runtime.Gosched()
			c.mu.Lock()
			if len(c.out) == before {
				break
			}
		}
		if c.err != nil || len(c.out) == 0 && len(c.ctl) == 0 {
			c.writing = false
			if c.rest != nil {
				close(c.rest)
				c.rest = nil
			}
			c.checkQuiet()
			c.mu.Unlock()
			return
		}
		if i == rounds {
			c.mu.Unlock()
			go c.flush(math.MaxInt)
			return
		}
		ctl, out := c.ctl, c.out
		c.ctl, c.out = c.spareC[:0], c.spareOut[:0]
		c.spareC, c.spareOut = nil, nil
		c.base += uint64(len(out))
		c.wakeWaiters()
		now := time.Now()
		moveDeadline := c.writeDeadline.Sub(now) < writeStall
		if moveDeadline {
			c.writeDeadline = now.Add(2 * writeStall)
		}
		deadline := c.writeDeadline
		c.mu.Unlock()

		if moveDeadline {
			_ = c.nc.SetWriteDeadline(deadline) // a dead connection fails the write
		}
		err := c.write(ctl, out)
		c.mu.Lock()
		if cap(ctl) <= maxQueue {
			c.spareC = ctl
		}
		if cap(out) <= maxQueue {
			c.spareOut = out
		}
		c.mu.Unlock()
		if err != nil {
			c.fail(lost(err))
		}
	}
}

func (c *Conn) write(ctl, out []byte) error {
	if len(ctl) > 0 && len(out) > 0 {
		ctl = append(ctl, out...)
		out = nil
	}
	for _, b := range [2][]byte{ctl, out} {
		if len(b) == 0 {
			continue
		}
		if _, err := c.nc.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// wakeWaiters wakes, with mu held, all who wait for space or credit.
func (c *Conn) wakeWaiters() {
	if c.space != nil {
		close(c.space)
		c.space = nil
	}
}

// waitSpace releases mu, waits until something has changed, and takes mu again. It
// returns an error when ctx ends or the connection is lost.
func (c *Conn) waitSpace(ctx context.Context) error {
	if c.space == nil {
		c.space = make(chan struct{})
	}
	space := c.space
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-space:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return ErrEnded
	}
}

// roundTrip is the last measured round trip, 0 when there is none.
func (c *Conn) roundTrip() time.Duration { return time.Duration(c.rtt.Load()) }

// sendControlFrame queues a frame that goes before all others and never waits.
func (c *Conn) sendControlFrame(kind frameType, stream uint64, payload ...byte) {
	c.mu.Lock()
	c.ctl = appendHeader(c.ctl, kind, 0, stream, len(payload))
	c.ctl = append(c.ctl, payload...)
	full := len(c.ctl) > hardQueue
	lead := c.lead()
	c.mu.Unlock()
	if full {
		c.fail(lost(errors.New("the other end does not read")))
		return
	}
	if lead {
		// Called on the reader too, which must not be held up by a slow write.
		go c.flush(math.MaxInt)
	}
}

// Control sends one control message. It waits while the queue is full.
func (c *Conn) Control(payload []byte) error {
	if len(payload) > MaxControl {
		return errs.New(errs.ResourceExhausted, "a control message of %d bytes is over the limit of %d", len(payload), MaxControl)
	}
	c.controlMu.Lock()
	defer c.controlMu.Unlock()
	for {
		piece := payload[:min(len(payload), MaxData)]
		payload = payload[len(piece):]
		var flags byte
		if len(payload) > 0 {
			flags = flagMore
		}
		c.mu.Lock()
		for c.err == nil && len(c.ctl) > bulkQueue {
			if err := c.waitSpace(context.Background()); err != nil {
				break
			}
		}
		if c.err != nil {
			err := c.err
			c.mu.Unlock()
			return err
		}
		c.ctl = appendHeader(c.ctl, frameControl, flags, 0, len(piece))
		c.ctl = append(c.ctl, piece...)
		lead := c.lead()
		c.mu.Unlock()
		if lead {
			c.flush(4)
		}
		if len(payload) == 0 {
			return nil
		}
	}
}

// Ping measures the round trip to the other end.
func (c *Conn) Ping(ctx context.Context) (time.Duration, error) {
	pong := make(chan struct{})
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		return 0, err
	}
	c.nextPing++
	id := c.nextPing
	if c.pings == nil {
		c.pings = make(map[uint64]chan struct{})
	}
	c.pings[id] = pong
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pings, id)
		c.mu.Unlock()
	}()
	start := time.Now()
	c.sendControlFrame(framePing, 0, binary.BigEndian.AppendUint64(nil, id)...)
	select {
	case <-pong:
		rtt := time.Since(start)
		c.rtt.Store(int64(rtt))
		return rtt, nil
	case <-ctx.Done():
		return 0, errs.From(ctx.Err()).In("link", "ping")
	case <-c.done:
		return 0, c.Err()
	}
}

// GoAway tells the other end to open no more calls on this connection. Calls under way
// go on, in both directions.
func (c *Conn) GoAway() {
	c.mu.Lock()
	if c.goAwaySent || c.err != nil {
		c.mu.Unlock()
		return
	}
	c.goAwaySent = true
	c.out = appendHeader(c.out, frameGoAway, 0, 0, 0)
	lead := c.lead()
	c.mu.Unlock()
	if lead {
		c.flush(4)
	}
}

// Drain says GoAway, waits until every call in either direction has ended, and closes
// the connection. When ctx ends first it closes at once and returns the error of ctx.
func (c *Conn) Drain(ctx context.Context) error {
	err := c.Quiesce(ctx)
	c.Close(errs.New(errs.Unavailable, "the connection was drained"))
	return err
}

// Quiesce says GoAway and waits until every call in either direction has ended and its
// answer is written; afterwards no call begins, but control messages still pass. It returns early, with the
// error of ctx, when ctx ends, and without one when the connection does.
func (c *Conn) Quiesce(ctx context.Context) error {
	c.GoAway()
	c.mu.Lock()
	if c.quiet == nil {
		c.quiet = make(chan struct{})
	}
	quiet := c.quiet
	c.checkQuiet()
	c.mu.Unlock()
	select {
	case <-quiet:
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// checkQuiet closes quiet, with mu held, when a drain has nothing left to wait for.
func (c *Conn) checkQuiet() {
	if c.quiet == nil || !c.goAwayAck || len(c.calls) > 0 || len(c.inbound) > 0 || len(c.out) > 0 || c.writing {
		return
	}
	if !c.drained {
		c.drained = true
		close(c.quiet)
	}
}

// Close ends the connection at once and tells the other end why. Calls under way are
// answered unavailable. Closing again does nothing.
func (c *Conn) Close(cause error) {
	e := errs.From(cause)
	if e == nil {
		e = errs.New(errs.Unavailable, "the connection was closed")
	}
	c.mu.Lock()
	if c.err == nil && !c.writing {
		c.writing = true
		at := len(c.out)
		c.out = appendHeader(c.out, frameClose, 0, 0, 0)
		c.out = appendStatus(c.out, e)
		setLength(c.out, at)
		ctl, out := c.ctl, c.out
		c.ctl, c.out = nil, nil
		c.base += uint64(at)
		c.mu.Unlock()
		_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second)) // a farewell is worth no more
		_ = c.write(ctl, out)
	} else if c.err == nil {
		// Another goroutine writes: the farewell goes out with what it has still to write.
		at := len(c.out)
		c.out = appendHeader(c.out, frameClose, 0, 0, 0)
		c.out = appendStatus(c.out, e)
		setLength(c.out, at)
		if c.rest == nil {
			c.rest = make(chan struct{})
		}
		rest := c.rest
		c.mu.Unlock()
		late := time.NewTimer(time.Second)
		select {
		case <-rest:
		case <-c.done:
		case <-late.C:
		}
		late.Stop()
	} else {
		c.mu.Unlock()
	}
	c.fail(e)
}

// lost is the error of a connection that ended without a word.
func lost(err error) *errs.Error {
	if errors.Is(err, io.EOF) {
		return errs.New(errs.Unavailable, "the other end closed the connection")
	}
	e := errs.New(errs.Unavailable, "the connection was lost: %w", err)
	e.Component = "link"
	return e
}

// fail ends the connection once: every waiting call is answered, every handler told.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = cause
	calls, base := c.calls, c.base
	c.calls = nil
	inbound := make([]*inbound, 0, len(c.inbound))
	for _, in := range c.inbound {
		inbound = append(inbound, in)
	}
	waiting := c.waiting
	c.waiting = nil
	for _, in := range waiting {
		delete(c.inbound, in.id)
	}
	idle := c.idle
	c.idle = nil
	c.out, c.ctl, c.spareOut, c.spareC = nil, nil, nil, nil
	c.wakeWaiters()
	close(c.done)
	// Cancelling under mu keeps an inbound call from being reused meanwhile.
	for _, in := range inbound {
		if in.call.Stream || !c.opt.KeepRunning {
			in.ctx.cancel(context.Canceled)
		}
	}
	c.mu.Unlock()

	_ = c.nc.Close() // nothing is left to be said or heard
	for _, p := range calls {
		p.lose(cause, p.start >= base)
	}
	for _, w := range idle {
		close(w.work)
	}
}
