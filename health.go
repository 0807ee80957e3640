package telford

import (
	"net/http"
	"time"

	"telford.dev/telford/internal/errs"
)

// Deaf says that the service has got nowhere with the runtime for longer than DeafAfter,
// or that this is over.
type Deaf struct {
	// Since is when there was progress last.
	Since time.Time
	// Cause is the last failure, where there was one.
	Cause error
	// Over: it hears again.
	Over bool
}

// OnDeaf has f called for each Deaf; see OnConnected.
func (s *Service) OnDeaf(f func(Deaf)) { onEvent(s.events, &s.events.deaf, f) }

// turnedDeaf tells the callbacks, and ends the process where that was asked for.
func (s *Service) turnedDeaf(deaf bool, since time.Time, cause error) {
	emit(s.events, &s.events.deaf, Deaf{Since: since, Cause: cause, Over: !deaf})
	if exit := s.opt.exitDeaf; deaf && exit != nil {
		last := []func(Deaf){func(Deaf) {
			s.log.Error("the process ends because the service is deaf", "since", since, "cause", cause, "status", ExitDeaf)
			exit(ExitDeaf)
		}}
		emit(s.events, &last, Deaf{})
	}
}

// Healthy returns nil while the service is ready: started, not stopping, and in touch
// with the runtime or not away from it for longer than DeafAfter. Otherwise the error,
// unavailable, says what it lacks. A short absence of the runtime leaves a service ready,
// because direct calls go on meanwhile.
func (s *Service) Healthy() error {
	const operation = "check health"
	s.mu.Lock()
	session, state := s.session, s.state
	s.mu.Unlock()
	if state != stateRunning || session == nil {
		return errs.New(errs.Unavailable, "service %s is %s", s.name, state).In("sdk", operation)
	}
	if !session.Available() {
		return errs.New(errs.Unavailable, "the session of service %s has ended: %w", s.name, session.Err()).In("sdk", operation)
	}
	if deaf, since, cause := session.Deaf(); deaf {
		since := since.UTC().Format(time.RFC3339)
		if cause == nil {
			return errs.New(errs.Unavailable, "service %s is deaf: nothing has moved between it and the runtime since %s", s.name, since).In("sdk", operation)
		}
		return errs.New(errs.Unavailable, "service %s is deaf: nothing has moved between it and the runtime since %s: %w", s.name, since, cause).In("sdk", operation)
	}
	return nil
}

// HealthHandler answers probes: 200 and "ok" while Healthy returns nil, else 503 and what
// it returns. Mount it where the readiness of the process is asked for; whether the
// process is to be killed is rather a matter of ExitWhenDeaf.
func (s *Service) HealthHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		text := "ok"
		if err := s.Healthy(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			text = err.Error()
		}
		_, _ = w.Write([]byte(text + "\n")) // the prober may be gone
	})
}
