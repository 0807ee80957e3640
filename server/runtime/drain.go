package runtime

import (
	"context"
	"sync"
)

// drain takes in nothing new and lets what runs finish until ctx ends. The doors go
// down together: a call through one of them may need a session that came in by another,
// and a session waits for the calls that run over it.
func (r *Runtime) drain(ctx context.Context) {
	b := &r.built
	if b.admin == nil {
		return // the doors were not reached
	}
	b.admin.Stop()
	b.router.Leave()
	var wg sync.WaitGroup
	wg.Go(func() { b.sessions.Stop(ctx) })
	if b.accept != nil {
		wg.Go(func() { b.accept.Stop(ctx) })
	}
	if b.grpc != nil {
		wg.Go(func() { b.grpc.Stop(ctx) })
	}
	if b.http != nil {
		wg.Go(func() { b.http.Stop(ctx) })
	}
	wg.Wait()
}
