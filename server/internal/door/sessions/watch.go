package sessions

import (
	"context"
	"errors"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/errs"
)

// maxWatched bounds the services that one instance watches by name.
const maxWatched = 1000

// watch begins to push what the instance asks for, instead of what it asked for before.
func (p *Port) watch(h *held, m *telfordv1.WatchRequest) {
	if n := len(m.GetServices()); n > maxWatched {
		p.t.Close(errs.New(errs.InvalidArgument, "a watch of %d services; at most %d can be named, or all", n, maxWatched))
		return
	}
	p.stopWatching()
	p.watched.Wait()
	services := m.GetServices()
	p.sees = sees{m.GetAll(), services}
	if m.GetAll() {
		services = nil
	} else if len(services) == 0 {
		return // nothing is of interest any more
	}
	var after catalog.Revision
	if m.GetAfter() != nil {
		after = catalogpb.RevisionFromProto(m.GetAfter())
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.mu.Lock()
	if p.retired {
		p.mu.Unlock()
		cancel()
		return
	}
	p.watching = cancel
	p.mu.Unlock()
	p.watched.Add(1)
	go func() {
		defer p.watched.Done()
		defer cancel()
		p.push(ctx, h, services, after)
	}()
}

// push sends updates until the watch or the connection ends. What the instance does not
// take waits in the registry, folded into one update; a connection that takes nothing
// at all is closed by its transport.
func (p *Port) push(ctx context.Context, h *held, services []string, after catalog.Revision) {
	w := p.server.cfg.Registry.Watch(h.key.namespace, services, after)
	defer w.Close()
	stop := context.AfterFunc(ctx, w.Close)
	defer stop()
	for {
		update, err := w.Next(ctx)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
				p.t.Close(errs.From(err).In("session", "watch"))
			}
			return
		}
		payload, err := p.server.encoder.ServerMessage(update)
		if err != nil {
			p.t.Close(errs.New(errs.Internal, "encode a watch: %w", err).In("session", "watch"))
			return
		}
		if p.t.Control(payload) != nil {
			return // the end of the connection is noticed elsewhere
		}
	}
}

// stopWatching ends the watch, without waiting for its goroutine.
func (p *Port) stopWatching() {
	p.mu.Lock()
	cancel := p.watching
	p.watching = nil
	p.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
