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
	account, err := readAccount(in.GetAccount())
	if err != nil {
		return nil, err
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

func (n *namespaces) Remove(ctx context.Context, in *adminv1.RemoveNamespaceRequest) (*adminv1.Namespace, error) {
	gone, err := n.api.cfg.Authority.RemoveNamespace(ctx, in.GetName(), operator)
	if err != nil {
		return nil, err
	}
	return namespaceToProto(&gone), nil
}

func (n *namespaces) SetAccount(ctx context.Context, in *adminv1.SetAccountRequest) (*adminv1.Namespace, error) {
	account, err := readAccount(in.GetAccount())
	if err != nil {
		return nil, err
	}
	set, err := n.api.cfg.Authority.SetAccount(ctx, in.GetName(), account, operator)
	if err != nil {
		return nil, err
	}
	return namespaceToProto(&set), nil
}

// readAccount reads the number of an account; an empty text is none.
func readAccount(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	account, err := strconv.ParseInt(text, 10, 64)
	if err != nil || account <= 0 {
		return 0, errs.New(errs.InvalidArgument, "account: %q is not a positive whole number", text)
	}
	return account, nil
}

func namespaceToProto(n *identity.Namespace) *adminv1.Namespace {
	out := &adminv1.Namespace{Name: n.Name, CreatedAt: timestamp(n.Created)}
	if n.Account != 0 {
		out.Account = strconv.FormatInt(n.Account, 10)
	}
	return out
}
