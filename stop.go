package telford

import (
	"context"
	"time"

	"telford.dev/telford/internal/errs"
)

// DefaultStopBudget is how long Stop lets handlers finish when its context has no
// deadline.
const DefaultStopBudget = 10 * time.Second

// Stop ends the service in order: the registry marks it as draining and callers stop
// picking it, calls that arrive are refused unbegun, what runs may finish and may still
// call others, then the instance is deregistered and everything is closed. When ctx ends
// first, or after 10 s if it has no deadline, what still runs is cut off and Stop returns
// deadline_exceeded. Stopping again waits for the first and returns its result; stopping
// a service that was never started only ends it.
func (s *Service) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		s.stopErr = s.stop(ctx)
		close(s.stopped)
	})
	<-s.stopped
	return s.stopErr
}

func (s *Service) stop(ctx context.Context) error {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultStopBudget)
		defer cancel()
	}
	s.mu.Lock()
	was := s.state
	if s.state < stateStopping {
		s.state = stateStopping
	}
	cancelStart := s.startCancel
	s.mu.Unlock()
	if was == stateStarting {
		cancelStart()
		<-s.startDone
	}
	var err error
	if was == stateRunning {
		err = s.drain(ctx)
	}
	s.release() //nolint:contextcheck // closing is bounded by itself
	s.mu.Lock()
	s.state = stateStopped
	s.mu.Unlock()
	return err
}

// drain lets what runs finish while outbound calls still work.
func (s *Service) drain(ctx context.Context) error {
	emit(s.events, &s.events.draining, Draining{Reason: "stopped"})
	s.session.Leave("stopped") //nolint:contextcheck // a farewell is bounded by itself
	s.table.Drain()
	if s.listener != nil {
		s.listener.GoAway()
	}
	err := s.table.Idle(ctx)
	left := s.table.Running()
	if s.listener != nil {
		if derr := s.listener.Drain(ctx); err == nil {
			err = derr
		}
	}
	if err != nil {
		return errs.New(errs.DeadlineExceeded, "%d handlers were still running when the time to stop was over: %w", left, err).In("sdk", "stop "+s.name)
	}
	return nil
}

// release closes everything, in the order of use: users first. It is safe to call on a
// service that is half built, and again.
func (s *Service) release() {
	s.table.Drain()
	s.mu.Lock()
	session, listener, conns := s.session, s.listener, s.conns
	s.conns = nil
	s.mu.Unlock()
	if session != nil {
		session.Close("stopped")
	}
	s.invoker.Store(nil)
	for _, c := range conns {
		c.close()
	}
	s.pool.Close()
	if listener != nil {
		listener.Close()
	} else {
		s.grpcServer.Stop()
	}
	s.closing.Wait()
	s.events.settle()
}

// fenced ends a service whose instance id another process has: it must neither serve
// nor call any more. The session is telling, so it cannot be waited for here.
func (s *Service) fenced() {
	s.table.Drain()
	s.invoker.Store(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	listener := s.listener
	if s.state >= stateStopping {
		return // Stop closes everything
	}
	s.state = stateStopped
	s.closing.Go(func() {
		if listener != nil {
			listener.Close()
		}
		s.pool.Close()
	})
}
