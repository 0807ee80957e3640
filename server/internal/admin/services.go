package admin

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/registry"
)

const (
	maxTombstones = 100 // of the gone that a service shows
	maxNamed      = 10  // names in an error
)

// services implements telford.admin.v1.Services.
type services struct {
	adminv1.UnimplementedServicesServer
	api *API
}

func (s *services) List(_ context.Context, in *adminv1.ListServicesRequest) (*adminv1.ListServicesResponse, error) {
	status := catalog.Status(in.GetStatus())
	if status != "" && !status.Known() {
		return nil, errs.New(errs.InvalidArgument, "status: %q is none of OK, WARNING, ERROR, SUSPENDED, OFFLINE", in.GetStatus())
	}
	all := s.list(registry.Filter{Namespace: in.GetNamespace(), Service: in.GetName(), Tag: in.GetTag(), Status: status})
	page, next, err := paginate(all, in.GetPageSize(), in.GetPageToken(), instanceKey)
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListServicesResponse{NextPageToken: next}
	for _, i := range page {
		out.Items = append(out.Items, instanceToProto(i))
	}
	return out, nil
}

// instanceKey orders instances by service, namespace and id.
func instanceKey(i *catalog.Instance) string {
	return i.Declaration.Service + "\x00" + i.Namespace + "\x00" + i.ID
}

// list returns instances in the order of instanceKey.
func (s *services) list(f registry.Filter) []*catalog.Instance {
	all := s.api.cfg.Registry.List(f)
	slices.SortFunc(all, func(a, b *catalog.Instance) int { return strings.Compare(instanceKey(a), instanceKey(b)) })
	return all
}

func (s *services) Get(ctx context.Context, in *adminv1.GetServiceRequest) (*adminv1.Service, error) {
	namespace := orDefault(in.GetNamespace())
	if in.GetName() == "" {
		return nil, errs.New(errs.InvalidArgument, "name: empty; name a service or an instance id")
	}
	gone, err := s.tombstones(ctx, namespace)
	if err != nil {
		return nil, err
	}
	name, instances, of := in.GetName(), s.list(registry.Filter{Namespace: namespace, Service: in.GetName()}), ofService(in.GetName())
	if len(instances) == 0 && !slices.ContainsFunc(gone, of) {
		// Not a service: an instance, here or gone.
		of = func(t catalog.Tombstone) bool { return t.ID == in.GetName() }
		if i, err := s.api.cfg.Registry.Get(namespace, in.GetName()); err == nil {
			name, instances = i.Declaration.Service, []*catalog.Instance{i}
		} else if n := slices.IndexFunc(gone, of); n >= 0 {
			name = gone[n].Service
		} else {
			return nil, errs.New(errs.ServiceNotFound, "namespace %q has no service and no instance %q%s", namespace, in.GetName(), s.known(namespace))
		}
	}
	out := &adminv1.Service{Name: name, Namespace: namespace}
	methods := make(map[string]*adminv1.Method)
	newest := make(map[string]*catalog.Instance)
	for _, i := range instances {
		p := instanceToProto(i)
		out.Instances = append(out.Instances, p)
		for _, m := range p.GetMethods() {
			if n := newest[m.GetName()]; n == nil || match.CompareVersions(i.Declaration.Version, n.Declaration.Version) > 0 {
				methods[m.GetName()], newest[m.GetName()] = m, i
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		out.Methods = append(out.Methods, methods[name])
	}
	for _, t := range gone {
		if of(t) && len(out.Tombstones) < maxTombstones {
			out.Tombstones = append(out.Tombstones, tombstoneToProto(t))
		}
	}
	return out, nil
}

func ofService(name string) func(catalog.Tombstone) bool {
	return func(t catalog.Tombstone) bool { return t.Service == name }
}

// known names the services of a namespace, as the end of an error.
func (s *services) known(namespace string) string {
	names := make(map[string]bool)
	for _, i := range s.api.cfg.Registry.List(registry.Filter{Namespace: namespace}) {
		names[i.Declaration.Service] = true
	}
	if len(names) == 0 {
		return "; nothing is registered there"
	}
	list := slices.Sorted(maps.Keys(names))
	more := ""
	if len(list) > maxNamed {
		list, more = list[:maxNamed], ", …"
	}
	return "; registered are " + strings.Join(list, ", ") + more
}

// tombstones returns those of a namespace, "" for all, newest first.
func (s *services) tombstones(ctx context.Context, namespace string) ([]catalog.Tombstone, error) {
	all, err := s.api.cfg.Registry.Tombstones(ctx, registry.Filter{Namespace: namespace})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b catalog.Tombstone) int { return strings.Compare(tombstoneKey(a), tombstoneKey(b)) })
	return all, nil
}

func (s *services) Watch(in *adminv1.WatchServicesRequest, out grpc.ServerStreamingServer[adminv1.ServiceUpdate]) error {
	after := catalog.Revision{Epoch: in.GetAfter().GetEpoch(), N: in.GetAfter().GetN()}
	var names []string // nil means all
	if len(in.GetNames()) > 0 {
		names = in.GetNames()
	}
	w := s.api.cfg.Registry.Watch(orDefault(in.GetNamespace()), names, after)
	defer w.Close()
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	go func() {
		select {
		case <-s.api.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		u, err := w.Next(ctx)
		select {
		case <-s.api.stopping:
			return errs.New(errs.Unavailable, "the runtime is stopping; watch again after revision %d.%d", after.Epoch, after.N)
		default:
		}
		if err != nil {
			return err
		}
		if err := out.Send(updateToProto(u)); err != nil {
			return err
		}
		after = u.Revision
	}
}

func (s *services) Drain(ctx context.Context, in *adminv1.DrainServiceRequest) (*adminv1.Instance, error) {
	namespace := orDefault(in.GetNamespace())
	if _, err := s.present(ctx, namespace, in.GetId()); err != nil {
		return nil, err
	}
	if err := s.api.cfg.Registry.Drain(registry.WithAuthor(ctx, operator), namespace, in.GetId(), !in.GetUndo()); err != nil {
		return nil, err
	}
	i, err := s.api.cfg.Registry.Get(namespace, in.GetId())
	if err != nil {
		return nil, err
	}
	return instanceToProto(i), nil
}

func (s *services) Deregister(ctx context.Context, in *adminv1.DeregisterServiceRequest) (*adminv1.Tombstone, error) {
	namespace := orDefault(in.GetNamespace())
	i, err := s.present(ctx, namespace, in.GetId())
	if err != nil {
		return nil, err
	}
	if err := s.api.cfg.Registry.Deregister(registry.WithAuthor(ctx, operator), namespace, in.GetId(), catalog.Operator); err != nil {
		return nil, err
	}
	s.api.cfg.EndSession(namespace, in.GetId(), errs.New(errs.FailedPrecondition, "an operator has deregistered instance %q", in.GetId()))
	return &adminv1.Tombstone{
		Id: i.ID, Name: i.Declaration.Service, Namespace: namespace, Reason: string(catalog.Operator), At: timestamp(s.api.cfg.Now()),
	}, nil
}

func (s *services) Expire(_ context.Context, in *adminv1.ExpireServicesRequest) (*adminv1.ExpireServicesResponse, error) {
	out := &adminv1.ExpireServicesResponse{}
	for _, h := range s.api.cfg.Registry.Held() {
		if in.GetNamespace() != "" && in.GetNamespace() != h.Namespace {
			continue
		}
		item := &adminv1.HeldInstances{
			Namespace: h.Namespace, Instances: int32(h.Instances), Registered: int32(h.Registered), Since: timestamp(h.Since),
		}
		if !h.Resumes.IsZero() {
			item.ResumesAt = timestamp(h.Resumes)
		}
		out.Items = append(out.Items, item)
	}
	out.Confirmed = in.GetConfirm() && s.api.cfg.Registry.ConfirmExpiry(in.GetNamespace()) > 0
	return out, nil
}

// present returns an instance, or says what is wrong with an id that is none.
func (s *services) present(ctx context.Context, namespace, id string) (*catalog.Instance, error) {
	if id == "" {
		return nil, errs.New(errs.InvalidArgument, "id: empty; name an instance")
	}
	if i, err := s.api.cfg.Registry.Get(namespace, id); err == nil {
		return i, nil
	}
	if list := s.list(registry.Filter{Namespace: namespace, Service: id}); len(list) > 0 {
		ids := make([]string, 0, maxNamed)
		for _, i := range list[:min(len(list), maxNamed)] {
			ids = append(ids, i.ID)
		}
		return nil, errs.New(errs.InvalidArgument, "id: %q is a service; name one of its instances: %s", id, strings.Join(ids, ", "))
	}
	gone, err := s.tombstones(ctx, namespace)
	if err != nil {
		return nil, err
	}
	for _, t := range gone {
		if t.ID == id {
			return nil, errs.New(errs.NotFound, "instance %q of %q is gone since %s: %s", id, t.Service, t.At.UTC().Format(time.RFC3339), t.Reason)
		}
	}
	return nil, errs.New(errs.NotFound, "namespace %q has no instance %q; see telford services list", namespace, id)
}

func (s *services) ListTombstones(ctx context.Context, in *adminv1.ListTombstonesRequest) (*adminv1.ListTombstonesResponse, error) {
	all, err := s.tombstones(ctx, in.GetNamespace())
	if err != nil {
		return nil, err
	}
	if in.GetName() != "" {
		all = slices.DeleteFunc(all, func(t catalog.Tombstone) bool { return t.Service != in.GetName() })
	}
	page, next, err := paginate(all, in.GetPageSize(), in.GetPageToken(), tombstoneKey)
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListTombstonesResponse{NextPageToken: next}
	for _, t := range page {
		out.Items = append(out.Items, tombstoneToProto(t))
	}
	return out, nil
}
