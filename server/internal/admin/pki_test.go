package admin

import (
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"telford.dev/telford/internal/ident"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func TestPKI(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, token := s.operator(t), s.authority.OperatorToken()
	client := adminv1.NewPKIClient(s.conn)
	same := func() *adminv1.PKIStatus {
		t.Helper()
		want, err := client.GetStatus(ctx, &adminv1.GetPKIStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		code, got := s.do(t, http.MethodGet, "/api/v1/pki", token, "")
		if code != http.StatusOK {
			t.Fatalf("answered %d: %s", code, got)
		}
		sameBytes(t, got, want)
		return want
	}
	steady := same()
	root := s.authority.Roots()[0]
	spki := ident.SPKI(root)
	if len(steady.GetCertificates()) != 3 || steady.GetPhase() != "steady" || steady.GetNextAt() != nil || steady.GetTrustDomain() != s.authority.TrustDomain() {
		t.Fatalf("%v", steady)
	}
	for i, want := range []struct {
		role string
		days int32
	}{{"root", 3650}, {"issuer", 365}, {"node", 1}} {
		c := steady.GetCertificates()[i]
		if c.GetRole() != want.role || c.GetState() != "active" || c.GetDaysLeft() != want.days || c.GetSerial() == "" || c.GetSubject() == "" || len(c.GetSpki()) != 64 {
			t.Errorf("%v, want %v", c, want)
		}
	}
	if c := steady.GetCertificates()[0]; c.GetSpki() != hex.EncodeToString(spki[:]) || !c.GetNotAfter().AsTime().Equal(root.NotAfter) || c.GetSerial() != root.SerialNumber.Text(16) {
		t.Errorf("%v", c)
	}
	if at := steady.GetRotateAt().AsTime().Sub(s.clock.Now()); at < 2433*24*time.Hour || at > 2434*24*time.Hour {
		t.Errorf("rotates after %s", at)
	}

	began, err := client.RotateRoot(ctx, &adminv1.RotateRootRequest{})
	if err != nil || began.GetPhase() != "distributing" || began.GetNextAt() == nil || began.GetCertificates()[1].GetState() != "next" {
		t.Fatalf("%v, %v", began, err)
	}
	same()
	if _, err := client.RotateRoot(ctx, &adminv1.RotateRootRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a second rotation: %v", err)
	}
	for _, want := range []string{"signing", "steady"} {
		code, got := s.do(t, http.MethodPost, "/api/v1/pki:rotateRoot", token, `{"now":true}`)
		if code != http.StatusOK {
			t.Fatalf("answered %d: %s", code, got)
		}
		now := same()
		sameBytes(t, got, now)
		if now.GetPhase() != want {
			t.Errorf("phase %s, want %s", now.GetPhase(), want)
		}
	}
	if c := same().GetCertificates()[0]; c.GetState() != "former" || c.GetSpki() != hex.EncodeToString(spki[:]) {
		t.Errorf("%v", c)
	}

	for path, body := range map[string]string{"/api/v1/pki:rotateRoot": `{"now":"soon"}`, "/api/v1/pki:rotateRoot?": `{"later":true}`} {
		if code, got := s.do(t, http.MethodPost, path, token, body); code != http.StatusBadRequest {
			t.Errorf("%s answered %d: %s", body, code, got)
		}
	}
	if code, got := s.do(t, http.MethodPost, "/api/v1/pki:rotateRoot", "", `{}`); code != http.StatusUnauthorized {
		t.Errorf("without a credential: %d: %s", code, got)
	}
}
