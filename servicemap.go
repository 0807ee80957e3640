package telford

import (
	"context"
	"maps"
	"slices"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/view"
)

// Status is the health that an instance says of itself.
type Status string

// The statuses. StatusOK and StatusWarning receive calls; a StatusOffline instance is
// not even visible.
const (
	StatusOK        = Status(catalog.OK)
	StatusWarning   = Status(catalog.Warning)
	StatusError     = Status(catalog.Error)
	StatusSuspended = Status(catalog.Suspended)
	StatusOffline   = Status(catalog.Offline)
)

// SetStatus says how this instance is; the message, of at most 1,024 bytes, is shown to
// people. It may be called at any time; while the runtime is away the last word is sent
// when it is back.
func (s *Service) SetStatus(status Status, message string) error {
	if !catalog.Status(status).Known() {
		return errs.New(errs.InvalidArgument, "%q is no status; want OK, WARNING, ERROR, SUSPENDED or OFFLINE", status).In("sdk", "set status")
	}
	if len(message) > 1024 {
		return errs.New(errs.InvalidArgument, "the status message has %d bytes, at most 1024 are allowed", len(message)).In("sdk", "set status")
	}
	s.mu.Lock()
	s.status, s.statusMessage = status, message
	session := s.session
	s.mu.Unlock()
	if session != nil {
		session.SetStatus(catalog.Status(status), message)
	}
	return nil
}

// Identity is who this process is, by its certificate in force.
type Identity struct {
	TrustDomain, Namespace, Service, Instance string
	// KeyID is the key by which the certificate was issued.
	KeyID string
	// URI is the SPIFFE id.
	URI                 string
	NotBefore, NotAfter time.Time
}

// Identity returns who this process is now; the zero Identity before it has a
// certificate. The certificate is replaced as time goes by: read it when it is needed.
func (s *Service) Identity() Identity {
	own := s.trust.Identity()
	if own.Instance == "" {
		return Identity{}
	}
	return Identity{
		TrustDomain: own.TrustDomain, Namespace: own.Namespace, Service: own.Service, Instance: own.Instance,
		KeyID: own.KeyID, URI: own.String(), NotBefore: own.NotBefore, NotAfter: own.NotAfter,
	}
}

// ServiceInfo is what this process knows of a service that it uses.
type ServiceInfo struct {
	Name string
	// Declared: by Uses or Conn before Start.
	Declared  bool
	Instances []InstanceInfo
}

// InstanceInfo is one instance, as last heard of.
type InstanceInfo struct {
	ID, Realm, Version  string
	Status              Status
	StatusMessage       string
	Tags                []string
	Metadata            map[string]string
	Locality, Zone      string
	Weight              int
	Reachable, Draining bool
	Address             string // for direct calls; "" when there is none
	Methods             []MethodInfo
	Registered          time.Time
}

// MethodInfo is one method of an instance.
type MethodInfo struct {
	Name         string
	Streaming    bool
	ContentTypes []string
	Contract     string
	Description  string
}

// ServiceMap returns the services that this one uses, by name, with their instances as
// last heard of; it stays what it was while the runtime is away.
func (s *Service) ServiceMap() map[string]ServiceInfo {
	snapshot := s.view.Snapshot()
	out := make(map[string]ServiceInfo, len(snapshot.Services))
	s.mu.Lock()
	for name := range s.uses {
		out[name] = ServiceInfo{Name: name, Declared: true}
	}
	s.mu.Unlock()
	for name, list := range snapshot.Services {
		info := out[name]
		info.Name = name
		for _, i := range list {
			info.Instances = append(info.Instances, instanceInfo(i))
		}
		out[name] = info
	}
	return out
}

func instanceInfo(i *catalog.Instance) InstanceInfo {
	d := &i.Declaration
	out := InstanceInfo{
		ID: i.ID, Realm: d.Realm, Version: d.Version, Status: Status(d.Status), StatusMessage: d.StatusMessage,
		Tags: slices.Clone(d.Tags), Metadata: maps.Clone(d.Metadata), Locality: d.Locality, Zone: i.Zone, Weight: max(d.Weight, 1),
		Reachable: i.Reachable, Draining: i.Draining, Address: view.Address(i), Registered: i.Registered,
	}
	for _, m := range d.Methods {
		out.Methods = append(out.Methods, MethodInfo{
			Name: m.Name, Streaming: m.Kind == catalog.ServerStream, ContentTypes: slices.Clone(m.ContentTypes), Contract: m.Contract, Description: m.Description,
		})
	}
	return out
}

// WaitReady waits until there is a session with the runtime, on which something moves,
// and each of the services has an instance that takes calls.
func (s *Service) WaitReady(ctx context.Context, services ...string) error {
	s.mu.Lock()
	session, state := s.session, s.state
	s.mu.Unlock()
	if session == nil || state >= stateStopping {
		return stateError("wait until ready", state)
	}
	if s.view.Want(services...) {
		session.Rewatch()
	}
	for {
		seen, up := s.view.Changed(), session.Changed()
		missing := s.missing(services)
		deaf, _, _ := session.Deaf()
		if session.Up() && !deaf && missing == "" {
			return nil
		}
		if !session.Available() {
			return errs.New(errs.Unavailable, "the session has ended: %w", session.Err()).In("sdk", "wait until ready")
		}
		select {
		case <-seen:
		case <-up:
		case <-ctx.Done():
			what := "there is no session with the runtime"
			if session.Up() {
				what = "the session with the runtime does not move"
			}
			if missing != "" {
				what = "service " + missing + " has no instance that takes calls"
				if s.view.Snapshot().Hidden(missing) {
					what = "policy forbids to call any instance of service " + missing
				}
			}
			return errs.New(errs.CodeOf(ctx.Err()), "%s: %w", what, ctx.Err()).In("sdk", "wait until ready")
		}
	}
}

// missing returns the first of the services without an instance that takes calls.
func (s *Service) missing(services []string) string {
	snapshot := s.view.Snapshot()
	for _, name := range services {
		if !slices.ContainsFunc(snapshot.Services[name], func(i *catalog.Instance) bool {
			return i.Declaration.Status.Receives() && !i.Draining && (i.Reachable || view.Address(i) != "")
		}) {
			return name
		}
	}
	return ""
}
