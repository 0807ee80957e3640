package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/errs"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/router"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// suite is the API over real domains, reached by gRPC and by HTTP.
type suite struct {
	api       *API
	authority *identity.Authority
	registry  *registry.Registry
	rules     *rules.Rules
	keyed     *idempotency.Keys
	values    *config.Values
	events    *feed.Feed
	clock     *clock.Manual
	conn      *grpc.ClientConn
	http      *httptest.Server
	log       *syncBuffer
	alarms    *alarm.Board
	ended     chan string // instances whose session was ended
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func setup(t *testing.T) *suite {
	t.Helper()
	ctx := t.Context()
	s := &suite{clock: clock.NewManual(time.Date(2030, 3, 1, 12, 0, 0, 0, time.UTC)), log: &syncBuffer{}, ended: make(chan string, 10)}
	dir := t.TempDir()
	db, err := store.Open(ctx, store.Config{Data: dir, Clock: s.clock, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if s.authority, err = identity.Open(ctx, identity.Config{DB: db, Storage: db, Clock: s.clock, Data: dir}); err != nil {
		t.Fatal(err)
	}
	s.alarms = alarm.New(s.clock, nil)
	if s.rules, err = rules.Open(ctx, rules.Config{DB: db, Storage: db, Namespaces: s.authority, Clock: s.clock}); err != nil {
		t.Fatal(err)
	}
	if s.registry, err = registry.Open(ctx, registry.Config{
		Policy: s.rules,
		DB:     db, Storage: db, Clock: s.clock, Zone: "local", TTL: time.Second, Alarms: s.alarms,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.registry.Stop(context.Background()) })
	if s.keyed, err = idempotency.New(idempotency.Config{DB: db, Storage: db, Clock: s.clock, Local: clock.Real(), Exclusive: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.keyed.Stop(context.Background()) })
	if s.events, err = feed.Open(feed.Config{DB: db, Storage: db, Namespaces: s.authority, Clock: s.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.events.Stop(context.Background()) })
	if s.values, err = config.Open(config.Config{DB: db, Storage: db, Feed: s.events, Namespaces: s.authority, Clock: s.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.values.Stop(context.Background()) })
	s.authority.AddTenant(s.values)
	s.authority.AddTenant(s.events)
	s.rules.OnChange(s.registry.Apply)
	s.authority.AddTenant(s.rules)
	s.authority.AddTenant(s.registry)
	s.api = New(Config{
		Authority: s.authority, Registry: s.registry, Rules: s.rules, Limits: s.rules,
		Method: router.New(router.Config{Index: s.registry}).ResolveMethod, Now: s.clock.Now, Log: slog.New(slog.NewJSONHandler(s.log, nil)),
		Alarms: s.alarms, Keyed: s.keyed, Values: s.values, Events: s.events,
		EndSession: func(namespace, instance string, _ *errs.Error) bool {
			s.ended <- namespace + "/" + instance
			return true
		},
		Info: func() *adminv1.Info { return &adminv1.Info{Version: &adminv1.Version{Version: "v9"}, Zone: "local"} },
	})
	g := grpc.NewServer()
	s.api.Register(g)
	l := bufconn.Listen(1 << 20)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	s.conn, err = grpc.NewClient("passthrough:///admin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	gateway, err := s.api.Gateway(writeProblem)
	if err != nil {
		t.Fatal(err)
	}
	s.http = httptest.NewServer(gateway)
	t.Cleanup(s.http.Close)
	return s
}

// writeProblem stands for that of the HTTP door.
func writeProblem(w http.ResponseWriter, _ *http.Request, e *errs.Error) {
	code := map[errs.Code]int{
		errs.Unauthenticated: 401, errs.PermissionDenied: 403, errs.NotFound: 404, errs.ServiceNotFound: 404,
		errs.MethodNotFound: 404, errs.InvalidArgument: 400, errs.AlreadyExists: 409, errs.Conflict: 409,
	}[e.Code]
	if code == 0 {
		code = 500
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": e.Code, "detail": e.Message, "status": code})
}

func (s *suite) operator(t *testing.T) context.Context {
	t.Helper()
	return bearer(t.Context(), s.authority.OperatorToken())
}

func bearer(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// do sends one request over HTTP and returns status and body.
func (s *suite) do(t *testing.T, method, path, token, body string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text
}

func (s *suite) register(t *testing.T, namespace, service, id string, tags ...string) {
	t.Helper()
	d := &catalog.Declaration{
		Service: service, Realm: "global", Version: "1.2.0", Tags: tags, Status: catalog.OK,
		Methods:   []catalog.Method{{Name: "charge", Kind: catalog.Unary, ContentTypes: []string{"json"}}},
		Endpoints: []catalog.Endpoint{{Kind: "link", Host: "127.0.0.1", Port: 4000}},
		Metadata:  map[string]string{"team": "money"},
	}
	if _, _, err := s.registry.Register(t.Context(), registry.Owner{Namespace: namespace, Instance: id, Service: service, Door: "link"}, d); err != nil {
		t.Fatal(err)
	}
}

// sameBytes checks that the JSON over HTTP is the protojson of the gRPC answer.
func sameBytes(t *testing.T, got []byte, want proto.Message) {
	t.Helper()
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	text = codec.Compact(text)
	if diff := cmp.Diff(string(text), strings.TrimSpace(string(got))); diff != "" {
		t.Errorf("JSON differs from gRPC (-gRPC +HTTP):\n%s", diff)
	}
}
