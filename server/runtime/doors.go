package runtime

import "log/slog"

// Door is an open door.
type Door struct {
	// Name is that of its setting: "grpc", "http".
	Name string
	// Addr is where it listens, its port never 0.
	Addr string
}

// Doors returns the open doors, in the order of the ready line. None before Start.
func (r *Runtime) Doors() []Door {
	var doors []Door
	for _, d := range []Door{{"grpc", r.built.grpcAddr}, {"http", r.built.httpAddr}} {
		if d.Addr != "" {
			doors = append(doors, d)
		}
	}
	return doors
}

// GRPCAddr is the address of links and gRPC; empty when that door is closed.
func (r *Runtime) GRPCAddr() string { return r.built.grpcAddr }

// HTTPAddr is the address of the HTTP door; empty when that door is closed.
func (r *Runtime) HTTPAddr() string { return r.built.httpAddr }

// HTTPURL is the URL of the HTTP door, without a slash at its end; empty when that door
// is closed.
func (r *Runtime) HTTPURL() string {
	if r.built.httpAddr == "" {
		return ""
	}
	return r.scheme() + "://" + r.built.httpAddr
}

// part is the log of one part.
func (r *Runtime) part(name string) *slog.Logger { return r.log.With("part", name) }
