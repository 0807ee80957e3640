package identity_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/identity"
)

// heardAlarms are the lines of a board's log about one alarm, shortened to what varies.
func heardAlarms(f *fixture, code string) []string {
	var out []string
	for line := range strings.SplitSeq(f.logs.String(), "\n") {
		if !strings.Contains(line, "alarm="+code) {
			continue
		}
		level, _, _ := strings.Cut(line[strings.Index(line, "level=")+6:], " ")
		what := "over"
		if _, rest, ok := strings.Cut(line, "expires in less than "); ok {
			what, _, _ = strings.Cut(rest, ",")
		} else if strings.Contains(line, "expired at") {
			what = "expired"
		}
		out = append(out, level+" "+what)
	}
	return out
}

// TestExpiryAlarms: once at each step before the end, for all that could not be renewed,
// and over when it was.
func TestExpiryAlarms(t *testing.T) {
	t.Parallel()
	const day = 24 * hours
	f := newFixture(newMemory())
	board := alarm.New(f.clk, slog.New(slog.NewTextHandler(f.logs, nil)))
	broken := &flakyVault{Vault: f.vault}
	ctx := context.Background()
	a := f.open(t, func(cfg *identity.Config) {
		cfg.Alarms, cfg.Vault = board, broken
		cfg.RootLife, cfg.IssuerLife, cfg.LeafLife = 300*day, 200*day, day
	})
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	run := func(until time.Duration) {
		for end := epoch.Add(until); f.clk.Now().Before(end); {
			f.clk.Leap(30 * time.Minute)
		}
	}
	soon := key(t, a, identity.CreateKey{Service: "soon", TTL: 250 * day})
	rotated := key(t, a, identity.CreateKey{Service: "rotated", TTL: 250 * day})
	revoked := key(t, a, identity.CreateKey{Service: "revoked", TTL: 250 * day})
	brief := key(t, a, identity.CreateKey{Service: "brief", TTL: 2 * day})
	key(t, a, identity.CreateKey{Service: "web", TTL: 2 * day, Kind: identity.KindAPI, Name: "web"})
	serviceKey(t, a, "ever")
	if _, _, err := a.RotateKey(ctx, rotated.ID, 240*day, "ada"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.RevokeKey(ctx, revoked.ID, "ada", ""); err != nil {
		t.Fatal(err)
	}
	run(10 * day)
	// What lives for two days has no thirty to go: a quarter of its life, an eighth, ...
	want := []string{"WARN 12h0m0s", "WARN 6h0m0s", "ERROR 3h0m0s", "ERROR 1h30m0s", "ERROR expired", "WARN over"}
	if diff := cmp.Diff(want, heardAlarms(f, "key_expiry."+brief.ID)); diff != "" {
		t.Error("a key of two days:", diff)
	}
	if n := len(board.List()); n > 0 {
		t.Errorf("%d alarms are up: %v", n, board.List())
	}

	// From now on no private key of a root can be read.
	broken.fail = errors.New("the disk is gone")
	run(262 * day)
	if diff := cmp.Diff([]string{"WARN 30 days", "WARN 14 days", "ERROR 7 days", "ERROR 1 day", "ERROR expired", "WARN over"}, heardAlarms(f, "key_expiry."+soon.ID)); diff != "" {
		t.Error("a key:", diff)
	}
	for _, id := range []string{rotated.ID, revoked.ID} {
		if lines := heardAlarms(f, "key_expiry."+id); len(lines) > 0 {
			t.Errorf("alarms for a key with a successor, or a revoked one: %q", lines)
		}
	}
	// The issuer ended at 200 days, and so did the runtime's certificate.
	if diff := cmp.Diff([]string{"WARN 30 days", "WARN 14 days", "ERROR 7 days", "ERROR 1 day", "ERROR expired"}, heardAlarms(f, "certificate_expiry.issuer")); diff != "" {
		t.Error("issuer:", diff)
	}
	// That had got ever shorter before, always renewed in time.
	if lines := heardAlarms(f, "certificate_expiry.node"); len(lines) == 0 || len(lines) > 3 || lines[len(lines)-1] != "ERROR expired" {
		t.Errorf("node: %q", lines)
	}
	run(290 * day)
	if diff := cmp.Diff([]string{"WARN 30 days", "WARN 14 days"}, heardAlarms(f, "certificate_expiry.root")); diff != "" {
		t.Error("root:", diff)
	}

	// The disk is back: a rotation begins and all is renewed.
	broken.fail = nil
	until(t, f, a, identity.Steady)
	run(310 * day)
	for _, role := range []string{"root", "issuer", "node"} {
		if lines := heardAlarms(f, "certificate_expiry."+role); len(lines) == 0 || lines[len(lines)-1] != "WARN over" {
			t.Errorf("%s: %q", role, lines)
		}
	}
	if n := len(board.List()); n > 0 {
		t.Errorf("%d alarms are up: %v", n, board.List())
	}
}

// TestManyKeysExpire: twenty have an alarm of their own, the others share one.
func TestManyKeysExpire(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	board := alarm.New(f.clk, slog.New(slog.DiscardHandler))
	a := f.open(t, func(cfg *identity.Config) { cfg.Alarms = board })
	if err := a.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 25 {
		key(t, a, identity.CreateKey{Service: "orders", TTL: 24 * hours})
	}
	f.clk.Leap(20 * hours)
	list := board.List()
	if len(list) != 21 {
		t.Fatalf("%d alarms", len(list))
	}
	more := 0
	for _, l := range list {
		if l.Code == "key_expiry.more" && strings.HasPrefix(l.Message, "5 more keys expire soon") {
			more++
		}
	}
	if more != 1 {
		t.Errorf("%+v", list)
	}
	f.clk.Leap(30 * hours)
	if n := len(board.List()); n > 0 {
		t.Errorf("%d alarms are up", n)
	}
}
