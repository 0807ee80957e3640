package session

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// maxAhead is how far a command's number may be beyond the floor of those received.
const maxAhead = 1 << 20

// Handler is what the transports of this session give inbound commands to.
func (p *Peer) Handler() message.Handler { return inbound{p} }

type inbound struct{ p *Peer }

// HandleCall implements message.Handler: a number that was received before is not run
// again, but answered with what came, or comes, of it.
func (h inbound) HandleCall(ctx context.Context, call *message.Call) *message.Reply {
	p := h.p
	if call.Seq == 0 {
		return p.opt.Handler.HandleCall(ctx, call)
	}
	p.mu.Lock()
	if ex := p.executing[call.Seq]; ex != nil {
		p.mu.Unlock()
		select {
		case <-ex.done:
			return ex.reply
		case <-ctx.Done():
			cancelCall(ex.ctx) //nolint:contextcheck // the run that is under way is ended, not a new one begun
			return &message.Reply{Err: errs.From(ctx.Err())}
		}
	}
	if r := p.kept[call.Seq]; r != nil {
		p.mu.Unlock()
		return r
	}
	var refused *errs.Error
	switch {
	case p.closed != nil:
		refused = p.closed.Unstarted()
	case p.received.has(call.Seq):
		refused = errs.New(errs.Unavailable, "command %d was run, but its result is no longer kept", call.Seq)
	case call.Seq > p.received.floor+maxAhead:
		refused = errs.New(errs.InvalidArgument, "command %d is out of sequence: %d were received", call.Seq, p.received.floor)
	}
	if refused != nil {
		p.mu.Unlock()
		return &message.Reply{Err: refused}
	}
	p.received.add(call.Seq)
	ex := &execution{done: make(chan struct{}), ctx: ctx}
	p.executing[call.Seq] = ex
	first := len(p.executing) == 1
	p.mu.Unlock()
	if first && p.opt.OnActivity != nil {
		p.opt.OnActivity(true)
	}

	seq := call.Seq
	reply := p.execute(ctx, call)

	p.mu.Lock()
	ex.reply = reply
	close(ex.done)
	last := false
	if p.executing[seq] == ex {
		delete(p.executing, seq)
		p.keep(seq, reply)
		if last = len(p.executing) == 0; last {
			p.announce()
		}
	}
	p.mu.Unlock()
	if last && p.opt.OnActivity != nil {
		p.opt.OnActivity(false)
	}
	return reply
}

// execute runs the handler; the books are kept even when it panics.
func (p *Peer) execute(ctx context.Context, call *message.Call) (reply *message.Reply) {
	defer func() {
		if r := recover(); r != nil {
			p.opt.Log.Error("a handler panicked", "method", call.Method, "panic", r)
			reply = &message.Reply{Err: errs.New(errs.Internal, "the handler of %s panicked", call.Method)}
		}
	}()
	return p.opt.Handler.HandleCall(ctx, call)
}

// HandleStream implements message.Handler. Streams end with their connection.
func (h inbound) HandleStream(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
	return h.p.opt.Handler.HandleStream(ctx, call, out)
}

// keep holds a result until the other end acknowledges it, with mu held. Over the
// bounds the oldest go first.
func (p *Peer) keep(seq uint64, r *message.Reply) {
	if r == nil || seq <= p.acked {
		return
	}
	p.kept[seq] = r
	p.order = append(p.order, seq)
	p.keptBytes += len(r.Body)
	for len(p.order) > 0 && (len(p.kept) > KeptResults || p.keptBytes > KeptBytes || p.kept[p.order[0]] == nil) {
		p.drop(p.order[0])
		p.order = p.order[1:]
	}
}

func (p *Peer) drop(seq uint64) {
	if r := p.kept[seq]; r != nil {
		p.keptBytes -= len(r.Body)
		delete(p.kept, seq)
	}
}

// OnAck takes in what the other end has.
func (p *Peer) OnAck(a *telfordv1.Ack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for seq, cmd := range p.commands {
		if seq <= a.GetCommands() && !cmd.acked {
			cmd.acked = true
			p.heard = p.opt.Clock.Now()
		}
	}
	floor := min(a.GetResults(), p.received.top)
	if floor > p.acked {
		p.acked = floor
		p.received.raise(floor)
		for seq := range p.kept {
			if seq <= floor {
				p.drop(seq)
			}
		}
	}
	for _, seq := range a.GetDoneAbove() {
		p.drop(seq)
	}
}

// OnCancel ends a command of the other end that its caller has given up.
func (p *Peer) OnCancel(seq uint64) {
	p.mu.Lock()
	ex := p.executing[seq]
	p.mu.Unlock()
	if ex != nil {
		cancelCall(ex.ctx)
	}
}

// NextAck is what to acknowledge now, nil when nothing is new.
func (p *Peer) NextAck() *telfordv1.Ack {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unacked == 0 && p.received.floor == p.lastFloor {
		return nil
	}
	p.unacked, p.bytes, p.lastFloor = 0, 0, p.received.floor
	return &telfordv1.Ack{Commands: p.received.floor, Results: p.done.floor, DoneAbove: p.done.above()}
}

// SendAck acknowledges what has arrived, if anything has. Besides at every heartbeat
// it is sent when much has come.
func (p *Peer) SendAck() {
	p.mu.Lock()
	t := p.transport
	p.mu.Unlock()
	if t == nil {
		return
	}
	a := p.NextAck()
	if a == nil {
		return
	}
	p.send(t, &telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Ack{Ack: a}}, &telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Ack{Ack: a}})
}

func (p *Peer) sendCancel(t Transport, seq uint64) {
	c := &telfordv1.Cancel{Seq: seq}
	p.send(t, &telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Cancel{Cancel: c}}, &telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Cancel{Cancel: c}})
}

// send sends the message of this end's side. A transport that fails is noticed by
// its owner.
func (p *Peer) send(t Transport, client, server proto.Message) {
	m := server
	if p.opt.Client {
		m = client
	}
	b, err := proto.Marshal(m)
	if err == nil {
		err = t.Control(b)
	}
	if err != nil {
		p.opt.Log.Debug("a session message was not sent", "error", err)
	}
}

// OldestUnreceived is since when commands are sent that the other end has neither
// acknowledged nor answered: when the oldest of them was sent, or when it last took any
// command at all; false when there is none. An end that answers pings while this lies two
// intervals back is deaf.
func (p *Peer) OldestUnreceived() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var oldest time.Time
	for _, cmd := range p.commands {
		if !cmd.acked && (oldest.IsZero() || cmd.sent.Before(oldest)) {
			oldest = cmd.sent
		}
	}
	if !oldest.IsZero() && p.heard.After(oldest) {
		return p.heard, true // acknowledgements are in order, commands need not be
	}
	return oldest, !oldest.IsZero()
}
