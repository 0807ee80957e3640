package identity_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/tx"
)

func TestCreateKey(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t)
		row, text, err := a.CreateKey(ctx, identity.CreateKey{Service: "payments", Name: "prod", TTL: time.Hour, Author: "ada"})
		if err != nil {
			t.Fatal(err)
		}
		k, err := ident.ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		if k.ID != row.ID || !id.Valid("key", k.ID) || k.RootSPKI != ident.SPKI(a.Roots()[0]) {
			t.Errorf("the text is of %v, the row of %s", k, row.ID)
		}
		want := identity.Key{
			ID: row.ID, Namespace: "default", Service: "payments", Kind: identity.KindService, Name: "prod", SecretMAC: row.SecretMAC,
			Created: epoch, Expires: epoch.Add(time.Hour), Revision: 1, Updated: epoch, Author: "ada",
		}
		if diff := cmp.Diff(want, row); diff != "" {
			t.Error(diff)
		}
		if len(row.SecretMAC) != 32 || bytes.Contains(row.SecretMAC, k.Secret[:8]) {
			t.Error("the secret is stored")
		}
		listed, err := a.Keys(ctx, identity.KeyFilter{Service: "payments"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]identity.Key{want}, listed); diff != "" {
			t.Errorf("listed: %s", diff)
		}
		none, err := a.Keys(ctx, identity.KeyFilter{Namespace: "other"})
		if err != nil || len(none) != 0 {
			t.Errorf("of another namespace: %v %v", none, err)
		}
		for range 5 {
			serviceKey(t, a, "orders")
		}
		all, err := a.Keys(ctx, identity.KeyFilter{})
		if err != nil || len(all) != 6 || !slices.IsSortedFunc(all, func(x, y identity.Key) int { return strings.Compare(x.ID, y.ID) }) {
			t.Errorf("%d keys, sorted or not: %v", len(all), err)
		}
	})
}

func TestCreateKeyRefusals(t *testing.T) {
	t.Parallel()
	a := newFixture(newMemory()).open(t)
	for name, test := range map[string]struct {
		in   identity.CreateKey
		code errs.Code
		want string
	}{
		"no service":         {identity.CreateKey{}, errs.InvalidArgument, "name it with --service"},
		"bad service":        {identity.CreateKey{Service: "Pay ments"}, errs.InvalidArgument, `"Pay ments"`},
		"long service":       {identity.CreateKey{Service: strings.Repeat("a", 129)}, errs.InvalidArgument, "1 to 128"},
		"dots":               {identity.CreateKey{Service: ".."}, errs.InvalidArgument, `".."`},
		"the runtime":        {identity.CreateKey{Service: "telford"}, errs.InvalidArgument, "reserved"},
		"the operator":       {identity.CreateKey{Service: "telford.operator"}, errs.InvalidArgument, "reserved"},
		"kind":               {identity.CreateKey{Kind: "root", Service: "a"}, errs.InvalidArgument, `kind "root": want service, api or dev`},
		"api without name":   {identity.CreateKey{Kind: identity.KindAPI}, errs.InvalidArgument, "needs a name"},
		"lifetime":           {identity.CreateKey{Service: "a", TTL: -time.Second}, errs.InvalidArgument, "-1s"},
		"unknown namespace":  {identity.CreateKey{Service: "a", Namespace: "acme"}, errs.NotFound, `"acme" does not exist`},
		"unknown account":    {identity.CreateKey{Service: "a", Namespace: "77"}, errs.NotFound, `"77" does not exist`},
		"line break in name": {identity.CreateKey{Service: "a", Name: "x\ny"}, errs.InvalidArgument, `"x\ny"`},
		"long name":          {identity.CreateKey{Service: "a", Name: strings.Repeat("n", 201)}, errs.InvalidArgument, "201 bytes"},
		"dev, not in dev":    {identity.CreateKey{Kind: identity.KindDev}, errs.FailedPrecondition, "dev mode"},
		"dev with service":   {identity.CreateKey{Kind: identity.KindDev, Service: "a"}, errs.InvalidArgument, "any service"},
	} {
		_, text, err := a.CreateKey(context.Background(), test.in)
		if text != "" {
			t.Errorf("%s: a key was made", name)
		}
		wantError(t, err, test.code, test.want)
	}
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t, dev)
		k := serviceKey(t, a, "payments")
		pair := key(t, a, identity.CreateKey{Kind: identity.KindAPI, Namespace: "5821027", Name: "monitoring"})
		short := key(t, a, identity.CreateKey{Service: "orders", TTL: time.Minute})
		gone := serviceKey(t, a, "orders")
		if _, err := a.Authenticate(ctx, gone.String()); err != nil {
			t.Fatal(err)
		}
		if _, err := a.RevokeKey(ctx, gone.ID, "ada", "leaked"); err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			bearer string
			want   identity.Principal
		}{
			"service key": {k.String(), identity.Principal{Namespace: "default", Service: "payments", KeyID: k.ID, Kind: identity.KindService}},
			"as a pair":   {k.ID + ":" + k.SecretText(), identity.Principal{Namespace: "default", Service: "payments", KeyID: k.ID, Kind: identity.KindService}},
			"api pair":    {pair.ID + ":" + pair.SecretText(), identity.Principal{Namespace: "5821027", KeyID: pair.ID, Kind: identity.KindAPI}},
			"api key":     {pair.String(), identity.Principal{Namespace: "5821027", KeyID: pair.ID, Kind: identity.KindAPI}},
			"dev key":     {a.DevKey().String(), identity.Principal{Namespace: "default", KeyID: a.DevKey().ID, Kind: identity.KindDev}},
			"operator":    {a.OperatorToken(), identity.Principal{Operator: true}},
		} {
			got, err := a.Authenticate(ctx, test.bearer)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		for _, once := range []ident.Key{short, gone} { // what was proved once is not good for ever
			_, _ = a.Authenticate(ctx, once.String())
		}
		f.clk.Advance(time.Minute)
		guess, unknown, crossed := k, k, k
		guess.Secret[31] ^= 1
		unknown.ID = id.New("key")
		crossed.ID = pair.ID
		other := newFixture(newMemory()).open(t)
		for name, test := range map[string]struct{ bearer, want string }{
			"nothing":            {"", "no credential"},
			"some word":          {"secret-word", "neither a service key"},
			"truncated":          {k.String()[:60], "truncated: 60 of 111"},
			"wrong secret":       {guess.String(), "is not known to this cluster, or its secret is another"},
			"unknown id":         {unknown.String(), "is not known to this cluster, or its secret is another"},
			"another's secret":   {crossed.String(), "or its secret is another"},
			"expired":            {short.String(), "expired at 2031-05-01T12:01:00Z; create a new one"},
			"revoked":            {gone.String(), "was revoked at 2031-05-01T12:00:00Z"},
			"of another cluster": {serviceKey(t, other, "payments").String(), "is not known to this cluster"},
			"other operator":     {other.OperatorToken(), "admin.token"},
			"pair, bad secret":   {k.ID + ":zzz", "want 43 characters of base64url"},
			"pair, wrong secret": {k.ID + ":" + guess.SecretText(), "its secret is another"},
		} {
			p, err := a.Authenticate(ctx, test.bearer)
			if p != (identity.Principal{}) {
				t.Errorf("%s: is %+v", name, p)
			}
			wantError(t, err, errs.Unauthenticated, test.want)
			if rest := strings.TrimPrefix(test.bearer, "tlf_"); len(rest) > 40 && strings.Contains(err.Error(), rest[20:40]) && !strings.HasPrefix(rest, "key_") {
				t.Errorf("%s: the error quotes the credential", name)
			}
		}
	})
}

func TestAuthenticateReadsNoStore(t *testing.T) {
	t.Parallel()
	f, m := newFixture(nil), newMemory()
	f.store = m
	a := f.open(t)
	k := serviceKey(t, a, "payments")
	m.reads = 0
	for range 100 {
		if _, err := a.Authenticate(context.Background(), k.String()); err != nil {
			t.Fatal(err)
		}
		_, _ = a.Authenticate(context.Background(), "tlf_"+strings.Repeat("A", 107))
	}
	provision(t, a, f.clk, k, "payments", "in_1")
	if m.reads != 0 {
		t.Errorf("%d reads", m.reads)
	}
}

func TestADevKeyIsForDevModeOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	k := f.open(t, dev).DevKey()
	_, err := f.open(t).Authenticate(context.Background(), k.String())
	wantError(t, err, errs.PermissionDenied, "not in dev mode")
}

func TestRevokeKey(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t)
		k := serviceKey(t, a, "payments")
		f.clk.Advance(time.Second)
		row, err := a.RevokeKey(ctx, k.ID, "ada", "leaked")
		if err != nil {
			t.Fatal(err)
		}
		if !row.Revoked.Equal(epoch.Add(time.Second)) || row.Revision != 2 || row.Author != "ada" || row.State(f.clk.Now()) != "revoked" {
			t.Errorf("revoked: %+v", row)
		}
		f.clk.Advance(time.Second)
		again, err := a.RevokeKey(ctx, k.ID, "bob", "again")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(row, again); diff != "" {
			t.Errorf("revoking again changes the key: %s", diff)
		}
		for _, unknown := range []string{"", "key_x", id.New("key")} {
			_, err := a.RevokeKey(ctx, unknown, "ada", "")
			wantError(t, err, errs.NotFound, "does not exist", "telford keys list")
		}
		_, err = a.RevokeKey(ctx, k.ID, "ada", "x\x00")
		wantError(t, err, errs.InvalidArgument, "reason")
		if keys, _ := a.Revocations(); !slices.Equal(keys, []string{k.ID}) {
			t.Errorf("revocations %v", keys)
		}
	})
}

func TestRotateKey(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t)
		old := key(t, a, identity.CreateKey{Service: "payments", Name: "prod", TTL: 100 * time.Hour})
		p := provision(t, a, f.clk, old, "payments", "in_1")
		f.clk.Advance(time.Minute)
		row, text, err := a.RotateKey(ctx, old.ID, time.Hour, "ada")
		if err != nil {
			t.Fatal(err)
		}
		next, err := ident.ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		if row.Service != "payments" || row.Name != "prod" || row.Kind != identity.KindService || row.ID == old.ID ||
			!row.Expires.Equal(f.clk.Now().Add(100*time.Hour)) {
			t.Errorf("successor: %+v", row)
		}
		works := func(k ident.Key) error { _, err := a.Authenticate(ctx, k.String()); return err }
		if err := errors.Join(works(old), works(next)); err != nil {
			t.Errorf("within the grace: %v", err)
		}
		_, _, err = a.RotateKey(ctx, old.ID, time.Hour, "ada")
		wantError(t, err, errs.FailedPrecondition, "was rotated already at 2031-05-01T12:01:00Z")

		f.clk.Advance(time.Hour)
		if err := works(next); err != nil {
			t.Errorf("the successor: %v", err)
		}
		wantError(t, works(old), errs.Unauthenticated, "expired at 2031-05-01T13:01:00Z; it was rotated")
		wantError(t, p.renew(t, a), errs.Unauthenticated, "expired at 2031-05-01T13:01:00Z")
		_, _, err = a.RotateKey(ctx, old.ID, time.Hour, "ada")
		wantError(t, err, errs.FailedPrecondition, "expired")
		_, _, err = a.RotateKey(ctx, next.ID, -time.Hour, "ada")
		wantError(t, err, errs.InvalidArgument, "-1h")
		_, _, err = a.RotateKey(ctx, "key_none", time.Hour, "ada")
		wantError(t, err, errs.NotFound, `"key_none"`)

		// No grace: it has ended when the answer comes, and its certificates with it.
		forever := serviceKey(t, a, "orders")
		q := provision(t, a, f.clk, forever, "orders", "in_2")
		heard := false
		cancel := a.OnRevocation(func(keys, _ []string) { heard = heard || slices.Contains(keys, forever.ID) })
		defer cancel()
		successor, _, err := a.RotateKey(ctx, forever.ID, 0, "ada")
		if err != nil || !successor.Expires.IsZero() {
			t.Fatalf("rotate a key without end: %+v %v", successor, err)
		}
		wantError(t, works(forever), errs.Unauthenticated, "expired")
		if !heard || !a.Trust().Revoked(q.trust.Identity()) {
			t.Error("certificates of the ended key are still good")
		}
	})
}

func TestStaleAndBrokenWrites(t *testing.T) {
	t.Parallel()
	f, m := newFixture(nil), newMemory()
	f.store = m
	a := f.open(t)
	k := serviceKey(t, a, "payments")
	for cause, code := range map[error]errs.Code{
		tx.ErrFull: errs.ResourceExhausted, tx.ErrReadOnly: errs.FailedPrecondition, tx.ErrClosed: errs.Unavailable,
		tx.ErrOutcomeUnknown: errs.Unavailable, tx.ErrStale: errs.Conflict, context.Canceled: errs.Canceled, errors.New("x"): errs.Internal,
	} {
		m.fail = cause
		_, _, createErr := a.CreateKey(context.Background(), identity.CreateKey{Service: "a"})
		_, revokeErr := a.RevokeKey(context.Background(), k.ID, "", "")
		_, _, rotateErr := a.RotateKey(context.Background(), k.ID, 0, "")
		_, spaceErr := a.EnsureNamespace(context.Background(), "acme", 0)
		instanceErr := a.RevokeInstance(context.Background(), "default", "in_1", "", "")
		for _, err := range []error{createErr, revokeErr, rotateErr, spaceErr, instanceErr} {
			wantError(t, err, code)
			if !errors.Is(err, cause) {
				t.Errorf("%v does not say that %v", err, cause)
			}
		}
	}
	m.fail = nil
	if _, err := a.Authenticate(context.Background(), k.String()); err != nil {
		t.Errorf("a failed write changed the key: %v", err)
	}
	if keys, instances := a.Revocations(); len(keys)+len(instances) > 0 {
		t.Errorf("a failed write revoked %v %v", keys, instances)
	}
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t)
		acme, err := a.EnsureNamespace(ctx, "acme", 77)
		if err != nil {
			t.Fatal(err)
		}
		for _, account := range []int64{0, 77} {
			same, err := a.EnsureNamespace(ctx, "acme", account)
			if diff := cmp.Diff(acme, same); diff != "" || err != nil {
				t.Errorf("made again: %v %s", err, diff)
			}
		}
		for _, ref := range []string{"acme", "77"} {
			if got, err := a.Namespace(ref); got != acme || err != nil {
				t.Errorf("%s is %+v: %v", ref, got, err)
			}
		}
		if _, err := a.EnsureNamespace(ctx, "other", 0); err != nil {
			t.Error(err)
		}
		for name, test := range map[string]struct {
			namespace string
			account   int64
			code      errs.Code
			want      string
		}{
			"other account": {"acme", 78, errs.Conflict, "exists with account 77, not 78"},
			"taken account": {"third", 77, errs.Conflict, `account 77 is that of namespace "acme"`},
			"negative":      {"third", -1, errs.InvalidArgument, "-1"},
			"bad name":      {"Third", 0, errs.InvalidArgument, `"Third"`},
			"reserved":      {"telford", 0, errs.InvalidArgument, "reserved"},
		} {
			_, err := a.EnsureNamespace(ctx, test.namespace, test.account)
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			wantError(t, err, test.code, test.want)
		}
		_, err = a.Namespace("078")
		wantError(t, err, errs.NotFound, `"078"`)

		// An api key for an account makes the namespace.
		key(t, a, identity.CreateKey{Kind: identity.KindAPI, Namespace: "5821027", Name: "m"})
		key(t, a, identity.CreateKey{Kind: identity.KindAPI, Namespace: "5821027", Name: "n"})
		var names []string
		for _, ns := range f.open(t).Namespaces() {
			names = append(names, ns.Name)
		}
		if diff := cmp.Diff([]string{"5821027", "acme", "default", "other"}, names); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	a := newFixture(newMemory()).open(b)
	text, ctx := serviceKey(b, a, "payments").String(), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(ctx, text); err != nil {
			b.Fatal(err)
		}
	}
}
