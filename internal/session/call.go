package session

import (
	"context"
	"errors"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

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
