package admin

import (
	"context"
	"strconv"

	"telford.dev/telford/internal/errs"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/identity"
)

// namespaces implements telford.admin.v1.Namespaces.
type namespaces struct {
	adminv1.UnimplementedNamespacesServer
	api *API
}

func (n *namespaces) Create(ctx context.Context, in *adminv1.CreateNamespaceRequest) (*adminv1.Namespace, error) {
	var account int64
	if text := in.GetAccount(); text != "" {
		parsed, err := strconv.ParseInt(text, 10, 64)
		if err != nil || parsed <= 0 {
			return nil, errs.New(errs.InvalidArgument, "account: %q is not a positive whole number", text)
		}
		account = parsed
	}
	if _, err := n.api.cfg.Authority.Namespace(in.GetName()); err == nil {
		return nil, errs.New(errs.AlreadyExists, "namespace %q exists", in.GetName())
	}
	made, err := n.api.cfg.Authority.EnsureNamespace(ctx, in.GetName(), account)
	if err != nil {
		return nil, err
	}
	return namespaceToProto(&made), nil
}

func (n *namespaces) List(_ context.Context, in *adminv1.ListNamespacesRequest) (*adminv1.ListNamespacesResponse, error) {
	page, next, err := paginate(n.api.cfg.Authority.Namespaces(), in.GetPageSize(), in.GetPageToken(), func(n identity.Namespace) string { return n.Name })
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListNamespacesResponse{NextPageToken: next}
	for i := range page {
		out.Items = append(out.Items, namespaceToProto(&page[i]))
	}
	return out, nil
}

func namespaceToProto(n *identity.Namespace) *adminv1.Namespace {
	out := &adminv1.Namespace{Name: n.Name, CreatedAt: timestamp(n.Created)}
	if n.Account != 0 {
		out.Account = strconv.FormatInt(n.Account, 10)
	}
	return out
}
