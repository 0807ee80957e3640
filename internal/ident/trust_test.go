package ident_test

import (
	"crypto/tls"
	"errors"
	"testing"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

func TestRevoke(t *testing.T) {
	t.Parallel()
	tr := ident.NewTrust(clock.NewManual(epoch))
	calls := 0
	cancel := tr.OnRevoke(func() { calls++ })
	a, b := instance("a", "in_1"), instance("b", "in_2")
	same := instance("c", "in_1")
	same.Namespace = "other"
	steps := []struct {
		name            string
		snapshot        bool
		keys, instances []string
		calls           int
		a, b, same      bool
	}{
		{"nothing", false, nil, nil, 0, false, false, false},
		{"a key", false, []string{a.KeyID}, nil, 1, true, false, false},
		{"the key again", false, []string{a.KeyID}, nil, 1, true, false, false},
		{"an instance besides", false, nil, []string{"default/in_2"}, 2, true, true, false},
		{"snapshot without news", true, nil, []string{"default/in_2"}, 2, false, true, false},
		{"snapshot with news", true, []string{a.KeyID}, nil, 3, true, false, false},
		{"by instance in its namespace", true, nil, []string{"default/in_1"}, 4, true, false, false},
		{"empty names count for nobody", true, []string{""}, []string{""}, 4, false, false, false},
	}
	for _, step := range steps {
		tr.Revoke(step.snapshot, step.keys, step.instances)
		if calls != step.calls {
			t.Errorf("%s: %d calls, want %d", step.name, calls, step.calls)
		}
		if tr.Revoked(a) != step.a || tr.Revoked(b) != step.b || tr.Revoked(same) != step.same {
			t.Errorf("%s: revoked %v %v %v, want %v %v %v", step.name, tr.Revoked(a), tr.Revoked(b), tr.Revoked(same), step.a, step.b, step.same)
		}
	}
	if tr.Revoked(ident.Identity{}) {
		t.Error("nobody is revoked")
	}
	cancel()
	cancel()
	tr.Revoke(false, []string{"key_new"}, nil)
	if calls != 4 {
		t.Error("called after cancel")
	}
}

func TestSetCertificateRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t, domain)
	tr := ident.NewTrust(clock.NewManual(epoch))
	good, other := c.leaf(t, leafTemplate(instance("a", "in_1"))), c.leaf(t, leafTemplate(instance("a", "in_2")))
	mixed := good
	mixed.PrivateKey = other.PrivateKey
	none := leafTemplate(instance("a", "in_1"))
	none.URIs = nil
	for name, cert := range map[string]tls.Certificate{
		"empty": {}, "garbage": {Certificate: [][]byte{{1}}}, "another's key": mixed, "no key": {Certificate: good.Certificate},
		"no identity": c.leaf(t, none),
	} {
		if err := tr.SetCertificate(cert); !errors.Is(err, &errs.Error{Code: errs.InvalidArgument}) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if tr.Certificate() != nil || tr.Identity() != (ident.Identity{}) {
		t.Error("a refused certificate was taken")
	}
	_, _, serverErr, _ := meet(t, tr.ServerConfig("h2"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if errs.CodeOf(serverErr) != errs.Unavailable {
		t.Errorf("a server without a certificate: %v", serverErr)
	}
}
