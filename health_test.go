package telford

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func TestHealthOptions(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert, key := ca.issue(t, "echo", "in_a", "k", time.Hour)
	id := WithTLS(cert, key, ca.pem(), "")
	for want, opts := range map[string][]Option{
		"DeafAfter: 10ms":        {DeafAfter(10 * time.Millisecond)},
		"DeafAfter: -1s":         {DeafAfter(-time.Second)},
		"ExitWhenDeaf":           {ExitWhenDeaf(nil)},
		"it never turns deaf":    {ExitWhenDeaf(os.Exit), DeafAfter(0)},
		"both given: it never t": {DeafAfter(0), ExitWhenDeaf(os.Exit)},
	} {
		if _, err := New("echo", append(opts, id)...); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := New("echo", id, DeafAfter(0)); err != nil {
		t.Error(err)
	}
}

func TestHealthOfAServiceThatDoesNotRun(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert, key := ca.issue(t, "echo", "in_a", "k", time.Hour)
	s, err := New("echo", WithTLS(cert, key, ca.pem(), ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"service echo is new", "service echo is stopped"} {
		if err := s.Healthy(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		w := httptest.NewRecorder()
		s.HealthHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), want) {
			t.Errorf("the probe is told %d %s", w.Code, w.Body)
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
