package runtime_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/runtime"
	"telford.dev/telford/server/telfordtest"
)

func copyAll(w io.Writer, r io.Reader) (int64, error) { return io.Copy(w, io.LimitReader(r, 8<<20)) }

// trusting is a client that knows the private CA of a server.
func trusting(t *testing.T, srv *telfordtest.Server) (*http.Client, *x509.CertPool) {
	t.Helper()
	text, err := os.ReadFile(srv.CA())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatal("ca.crt holds no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}, pool
}

func TestHTTPWithThePrivateCA(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, database telfordtest.Option) {
		srv := telfordtest.Start(t, database, telfordtest.WithTLS())
		client, _ := trusting(t, srv)
		if !strings.HasPrefix(srv.HTTP(), "https://") {
			t.Fatalf("the address is %s", srv.HTTP())
		}
		for path, want := range map[string]int{
			"/healthz": 200, "/readyz": 200, "/metrics": 401, "/api/v1/info": 401, "/api/v1/none": 401, "/none": 401, "/": 401,
		} {
			if code, body := get(t, client, srv.HTTP()+path, ""); code != want {
				t.Errorf("%s without a credential: %d, want %d: %s", path, code, want, body)
			}
		}
		for path, want := range map[string]int{"/metrics": 200, "/api/v1/info": 200, "/api/v1/none": 404, "/none": 404} {
			if code, body := get(t, client, srv.HTTP()+path, srv.AdminToken()); code != want {
				t.Errorf("%s for the operator: %d, want %d: %s", path, code, want, body)
			}
		}
		if code, _ := get(t, client, srv.HTTP()+"/api/v1/info", srv.Key(t, "payments")); code != 403 {
			t.Errorf("a service administers: %d", code)
		}
	})
}

func TestAdministrationOnTheGRPCDoor(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	_, pool := trusting(t, srv)
	conn, err := grpc.NewClient(srv.Addr(), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, "localhost")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call := func(token string) (*adminv1.Info, error) {
		ctx := t.Context()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		return adminv1.NewSystemClient(conn).GetInfo(ctx, &adminv1.GetInfoRequest{})
	}
	info, err := call(srv.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	if info.GetDoors()["grpc"] != srv.Addr() || info.GetStore() != "sqlite" || info.GetSettings()["zone"] != "local" || info.GetNodeId() == "" {
		t.Errorf("info %v", info)
	}
	if _, err := call(""); status.Code(err) != codes.Unauthenticated {
		t.Errorf("nobody: %v", err)
	}
	if _, err := call(srv.Key(t, "payments")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a service: %v", err)
	}
}

func TestClosedDoors(t *testing.T) {
	t.Parallel()
	cfg := plain(t)
	cfg.GRPC = runtime.Off
	rt := start(t, cfg)
	if rt.GRPCAddr() != "" || len(rt.Doors()) != 1 || rt.Doors()[0].Name != "http" {
		t.Errorf("doors %v", rt.Doors())
	}
	if code, body := get(t, http.DefaultClient, rt.HTTPURL()+"/metrics", rt.Authority().OperatorToken()); code != 200 || !strings.Contains(body, "telford_connections 0") {
		t.Errorf("metrics without the gRPC door: %d", code)
	}
	cfg = plain(t)
	cfg.HTTP = runtime.Off
	rt = start(t, cfg)
	if rt.HTTPURL() != "" || len(rt.Doors()) != 1 || rt.Doors()[0].Name != "grpc" {
		t.Errorf("doors %v", rt.Doors())
	}
	if _, err := os.Stat(rt.Path("http.url")); err == nil {
		t.Error("an address is published for a closed door")
	}
}

func TestFirstMetricFamilies(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, database telfordtest.Option) {
		srv := telfordtest.Start(t, database)
		_, body := get(t, http.DefaultClient, srv.HTTP()+"/metrics", srv.AdminToken())
		for _, family := range []string{
			"telford_build_info", "telford_ready 1", "telford_start_time_seconds", "telford_sessions 0", "telford_connections 0",
			"telford_watchers 0", "telford_registrations_total 0", "telford_certificate_expiry_timestamp_seconds",
			"telford_store_writes_total", "telford_store_commit_seconds_bucket", "telford_calls_in_flight",
			"telford_call_duration_seconds_count", "go_goroutines", "process_resident_memory_bytes",
		} {
			if !strings.Contains(body, "\n"+family) {
				t.Errorf("/metrics lacks %s", family)
			}
		}
	})
}
