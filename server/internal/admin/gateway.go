package admin

import (
	"context"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/api"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

// maxBody bounds the body of a request to the JSON API: a configuration value of 1 MiB,
// however it is escaped, and what stands around it.
const maxBody = 6<<20 + 64<<10

// OpenAPIPath is where the description of the JSON API is.
const OpenAPIPath = "/api/v1/openapi.json"

// ProblemWriter answers an HTTP request with a failure, in problem details.
type ProblemWriter func(w http.ResponseWriter, r *http.Request, err *errs.Error)

// Gateway returns the JSON API, to be mounted at /api/v1/. It calls the same guarded
// services as the gRPC door; problem writes its failures.
func (a *API) Gateway(problem ProblemWriter) (http.Handler, error) {
	conn := newLocal()
	a.Register(conn)
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{&runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true},
		}}),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			// A stream that fails before its first message has asked for chunks already.
			w.Header().Del("Transfer-Encoding")
			problem(w, r, errpb.FromTransport(err))
		}),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
			problem(w, r, routing(r, code))
		}),
		runtime.WithStreamErrorHandler(func(_ context.Context, err error) *status.Status {
			return errpb.ToGRPC(errpb.FromTransport(err))
		}),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
	)
	ctx := context.Background()
	for _, register := range []func() error{
		func() error { return adminv1.RegisterKeysHandlerClient(ctx, mux, adminv1.NewKeysClient(conn)) },
		func() error {
			return adminv1.RegisterNamespacesHandlerClient(ctx, mux, adminv1.NewNamespacesClient(conn))
		},
		func() error {
			return adminv1.RegisterIdempotencyHandlerClient(ctx, mux, adminv1.NewIdempotencyClient(conn))
		},
		func() error { return adminv1.RegisterLimitsHandlerClient(ctx, mux, adminv1.NewLimitsClient(conn)) },
		func() error { return adminv1.RegisterConfigHandlerClient(ctx, mux, adminv1.NewConfigClient(conn)) },
		func() error { return adminv1.RegisterFeedHandlerClient(ctx, mux, adminv1.NewFeedClient(conn)) },
		func() error { return adminv1.RegisterPKIHandlerClient(ctx, mux, adminv1.NewPKIClient(conn)) },
		func() error { return adminv1.RegisterServicesHandlerClient(ctx, mux, adminv1.NewServicesClient(conn)) },
		func() error { return adminv1.RegisterPolicyHandlerClient(ctx, mux, adminv1.NewPolicyClient(conn)) },
		func() error {
			return adminv1.RegisterTransportHandlerClient(ctx, mux, adminv1.NewTransportClient(conn))
		},
		func() error { return adminv1.RegisterSystemHandlerClient(ctx, mux, adminv1.NewSystemClient(conn)) },
	} {
		if err := register(); err != nil {
			return nil, err
		}
	}
	document := api.OpenAPI()
	parameters, err := readParameters(document)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Nothing is told to those without a credential, not even what exists.
		if err := authorizeRequest(r, a.cfg.Authority); err != nil {
			problem(w, r, errs.From(err))
			return
		}
		if r.URL.Path == OpenAPIPath && r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(document)
			return
		}
		if err := parameters.check(r); err != nil {
			problem(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	}), nil
}

func authorizeRequest(r *http.Request, authority Authority) error {
	header := r.Header.Get("Authorization")
	if header == "" {
		return authorize(r.Context(), authority)
	}
	return authorizeHeader(r.Context(), authority, header)
}

// routing is the failure of a request that no method answers.
func routing(r *http.Request, code int) *errs.Error {
	if code == http.StatusMethodNotAllowed {
		return errs.New(errs.MethodNotFound, "%s is not served at %s; see %s", r.Method, r.URL.Path, OpenAPIPath)
	}
	return errs.New(errs.NotFound, "the API has no %s; see %s", r.URL.Path, OpenAPIPath)
}

// marshaler writes the JSON of the API, without white space. The failure that ends a
// stream behind its first message has the fields of problem details, as a failure before
// it has.
type marshaler struct{ *runtime.JSONPb }

func (m marshaler) Marshal(v any) ([]byte, error) {
	text, err := m.JSONPb.Marshal(detailed(v))
	return codec.Compact(text), err
}

func detailed(v any) any {
	chunk, ok := v.(map[string]proto.Message)
	if !ok {
		return v
	}
	st, ok := chunk["error"].(*spb.Status)
	if !ok {
		return v
	}
	e := errpb.FromTransport(status.FromProto(st).Err())
	code := runtime.HTTPStatusFromCode(e.GRPCCode)
	return map[string]proto.Message{"error": &adminv1.Problem{
		Type: "urn:telford:error:" + string(e.Code), Title: http.StatusText(code), Status: int32(code),
		Detail: e.Message, Code: string(e.Code),
	}}
}
