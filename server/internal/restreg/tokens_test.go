package restreg_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/restreg"
)

type keys map[string]string

func (k keys) AuthenticatePair(id, secret string) (identity.Principal, error) {
	if k[id] != secret || secret == "" {
		return identity.Principal{}, errs.New(errs.Unauthenticated, "no")
	}
	return identity.Principal{Namespace: "default", KeyID: id}, nil
}

func (k keys) Admit(_ context.Context, id string) (identity.Principal, error) {
	return k.AuthenticatePair(id, k[id])
}

func TestTokens(t *testing.T) {
	t.Parallel()
	now := clock.NewManual(noon.Add(123456789))
	known := keys{"key_1": "s"}
	tokens := restreg.NewTokens(known, [32]byte{7}, now)
	if _, _, _, err := tokens.Issue("key_1", "wrong"); errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("got %v", err)
	}
	one, expires, p, err := tokens.Issue("key_1", "s")
	if err != nil || p.Namespace != "default" || !expires.Equal(noon.Add(restreg.TokenLife)) {
		t.Fatalf("%v %v %v", expires, p, err)
	}
	two, _, _, err := tokens.Issue("key_1", "s")
	if err != nil || one == two {
		t.Fatalf("%s and %s: %v", one, two, err)
	}
	check := func(text string, want errs.Code) {
		t.Helper()
		_, _, err := tokens.Check(t.Context(), text)
		if err == nil && want != "" || err != nil && errs.CodeOf(err) != want {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	check(one, "")
	check(two, "")
	check(strings.ToUpper(one), errs.Unauthenticated)
	check(one[:len(one)-1]+"!", errs.Unauthenticated)
	for _, bad := range []string{"", "null", "tt_", "tt_AAAA", "tt_" + strings.Repeat("A", 60), "tt_" + strings.Repeat("A", 1000)} {
		check(bad, errs.Unauthenticated)
	}
	foreign := restreg.NewTokens(known, [32]byte{8}, now)
	if _, _, err := foreign.Check(t.Context(), one); errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("another cluster takes it: %v", err)
	}
	delete(known, "key_1")
	check(one, errs.Unauthenticated)
	known["key_1"] = "s"
	now.Advance(restreg.TokenLife - time.Second)
	check(one, "")
	now.Advance(time.Second)
	check(one, errs.Unauthenticated)
}

func TestUUIDs(t *testing.T) {
	t.Parallel()
	u, err := restreg.ParseUUID("6BC8D050-f86a-11e1-a89e-ca2ffe480b20")
	if err != nil || u.String() != "6bc8d050-f86a-11e1-a89e-ca2ffe480b20" {
		t.Fatalf("%s, %v", u, err)
	}
	if at := u.Time(); at.Year() != 2012 || at.Month() != time.September || at.Day() != 6 {
		t.Errorf("its time is %s", at)
	}
	for text, want := range map[string]string{
		"":                                     "Invalid UUID",
		"0":                                    "Invalid UUID",
		"6bc8d050xf86a-11e1-a89e-ca2ffe480b20": "Invalid UUID",
		"gbc8d050-f86a-11e1-a89e-ca2ffe480b20": "Invalid UUID",
		"6bc8d050-f86a-11e1-289e-ca2ffe480b20": "Unsupported UUID variant",
		"6bc8d050-f86a-41e1-a89e-ca2ffe480b20": "UUID is not version 1",
	} {
		if _, err := restreg.ParseUUID(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestServiceNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ id, service, want string }{
		{"Api-0", "", "api-0"},
		{"x-1", "Shop", "shop"},
		{"x-1", "no name", "x-1"},
		{"Telford", "", "rest.telford"},
		{"abc", "telford.registry", "rest.telford.registry"},
		{"telfords", "", "telfords"},
	} {
		if got := restreg.ServiceName(c.id, map[string]string{"service": c.service}); got != c.want {
			t.Errorf("%s with service %q: %s, want %s", c.id, c.service, got, c.want)
		}
	}
	for _, c := range []struct{ host, port, want string }{
		{"10.0.0.1", "80", "10.0.0.1:80"},
		{"::1", "80", "[::1]:80"},
		{"[::1]", "80", "[::1]:80"},
		{"", "80", ""},
		{"h", "", ""},
		{"h", "0", ""},
		{"h", "65536", ""},
		{"h/x", "80", ""},
		{"u@h", "80", ""},
		{"h", "8o", ""},
	} {
		if got := restreg.Address(map[string]string{"host": c.host, "port": c.port}); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.host, c.port, got, c.want)
		}
	}
}
