package telfordtest_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/telfordtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// BenchmarkStart is the time from nothing to a runtime that serves, and back.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		telfordtest.Start(b).Stop(b)
	}
}

func ready(t *testing.T, srv *telfordtest.Server) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.HTTP()+"/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func onBoth(t *testing.T, f func(t *testing.T, opts ...telfordtest.Option)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, telfordtest.WithDatabase(storetest.Postgres(t)))
	})
}

func TestRestartKeepsAddressesAndData(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, opts ...telfordtest.Option) {
		srv := telfordtest.Start(t, opts...)
		addr, http, key, token := srv.Addr(), srv.HTTP(), srv.Key(t, "payments"), srv.AdminToken()
		owner := registry.Owner{Namespace: "default", Instance: "in-1", Service: "payments", Door: "link"}
		if _, _, err := srv.Runtime().Registry().Register(t.Context(), owner, &catalog.Declaration{Service: "payments", Realm: "global", Status: catalog.OK}); err != nil {
			t.Fatal(err)
		}
		for _, how := range []struct {
			name string
			end  func(testing.TB)
		}{
			{"restart", func(testing.TB) {}}, {"stop", srv.Stop}, {"kill", srv.Kill},
		} {
			how.end(t)
			if how.name != "restart" {
				if err := ready(t, srv); err == nil {
					t.Errorf("%s: still ready", how.name)
				}
			}
			srv.Restart(t)
			if srv.Addr() != addr || srv.HTTP() != http || srv.AdminToken() != token {
				t.Errorf("%s: %s %s, before %s %s", how.name, srv.Addr(), srv.HTTP(), addr, http)
			}
			if err := ready(t, srv); err != nil {
				t.Errorf("%s: %v", how.name, err)
			}
			if _, err := srv.Runtime().Authority().Authenticate(t.Context(), key); err != nil {
				t.Errorf("%s: the key is gone: %v", how.name, err)
			}
			if i, err := srv.Runtime().Registry().Get("default", "in-1"); err != nil || i.Reachable {
				t.Errorf("%s: instance %v, %v", how.name, i, err)
			}
		}
	})
}

func TestKillCutsConnections(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	nc, err := net.Dial("tcp", srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	srv.Kill(t)
	srv.Kill(t)
	var ne net.Error
	if _, err := nc.Read(make([]byte, 1)); err == nil || errors.As(err, &ne) && ne.Timeout() {
		t.Errorf("the connection lives: %v", err)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	clock := telfordtest.NewClock(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC))
	srv := telfordtest.Start(t, telfordtest.WithClock(clock), telfordtest.LeafLife(time.Hour))
	trust := srv.Runtime().Authority().Trust()
	before := trust.Identity().NotAfter
	if d := before.Sub(clock.Now()); d <= 0 || d > time.Hour {
		t.Errorf("the certificate lives for %s", d)
	}
	clock.Advance(50 * time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !trust.Identity().NotAfter.After(before); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("at %s the certificate still ends at %s", clock.Now(), trust.Identity().NotAfter)
		}
	}
}

func TestEnvAndNamespaces(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t, telfordtest.Dev())
	env := strings.Join(srv.Env(t, "payments"), "\n")
	for _, want := range []string{"TELFORD_SERVER=" + srv.Addr(), "TELFORD_HTTP=http://127.0.0.1:", "TELFORD_KEY=tlf_"} {
		if !strings.Contains(env, want) {
			t.Errorf("the environment lacks %s:\n%s", want, env)
		}
	}
	p, err := srv.Runtime().Authority().Authenticate(context.Background(), srv.KeyIn(t, "blue", "payments"))
	if err != nil || p.Namespace != "blue" {
		t.Errorf("%v %v", p, err)
	}
}
