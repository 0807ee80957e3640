package admin

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/identity"
)

// defaultGrace is how long a rotated key goes on provisioning.
const defaultGrace = 24 * time.Hour

// keys implements telford.admin.v1.Keys.
type keys struct {
	adminv1.UnimplementedKeysServer
	api *API
}

func (k *keys) Create(ctx context.Context, in *adminv1.CreateKeyRequest) (*adminv1.CreateKeyResponse, error) {
	ttl, err := duration("ttl", in.GetTtl(), 0)
	if err != nil {
		return nil, err
	}
	key, text, err := k.api.cfg.Authority.CreateKey(ctx, identity.CreateKey{
		Namespace: in.GetNamespace(), Service: in.GetService(), Kind: identity.Kind(in.GetKind()), Name: in.GetName(), TTL: ttl, Author: operator,
	})
	if err != nil {
		return nil, err
	}
	return created(&key, text)
}

func (k *keys) List(ctx context.Context, in *adminv1.ListKeysRequest) (*adminv1.ListKeysResponse, error) {
	all, err := k.api.cfg.Authority.Keys(ctx, identity.KeyFilter{Namespace: in.GetNamespace(), Service: in.GetService()})
	if err != nil {
		return nil, err
	}
	page, next, err := paginate(all, in.GetPageSize(), in.GetPageToken(), func(k identity.Key) string { return k.ID })
	if err != nil {
		return nil, err
	}
	now := k.api.cfg.Now()
	out := &adminv1.ListKeysResponse{NextPageToken: next}
	for i := range page {
		out.Items = append(out.Items, keyToProto(&page[i], now))
	}
	return out, nil
}

func (k *keys) Revoke(ctx context.Context, in *adminv1.RevokeKeyRequest) (*adminv1.Key, error) {
	key, err := k.api.cfg.Authority.RevokeKey(ctx, in.GetId(), operator, in.GetReason())
	if err != nil {
		return nil, err
	}
	return keyToProto(&key, k.api.cfg.Now()), nil
}

func (k *keys) Rotate(ctx context.Context, in *adminv1.RotateKeyRequest) (*adminv1.CreateKeyResponse, error) {
	grace, err := duration("grace", in.GetGrace(), defaultGrace)
	if err != nil {
		return nil, err
	}
	key, text, err := k.api.cfg.Authority.RotateKey(ctx, in.GetId(), grace, operator)
	if err != nil {
		return nil, err
	}
	return created(&key, text)
}

func created(key *identity.Key, text string) (*adminv1.CreateKeyResponse, error) {
	parsed, err := ident.ParseKey(text)
	if err != nil {
		return nil, errs.New(errs.Internal, "the new key %s cannot be read back: %w", key.ID, err)
	}
	return &adminv1.CreateKeyResponse{
		Id: key.ID, Secret: parsed.SecretText(), Key: text, Namespace: key.Namespace, Service: key.Service,
		Kind: string(key.Kind), Name: key.Name, CreatedAt: timestamp(key.Created), ExpiresAt: timestamp(key.Expires),
	}, nil
}

func keyToProto(k *identity.Key, now time.Time) *adminv1.Key {
	state := "active"
	switch {
	case !k.Revoked.IsZero():
		state = "revoked"
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		state = "expired"
	}
	return &adminv1.Key{
		Id: k.ID, Namespace: k.Namespace, Service: k.Service, Kind: string(k.Kind), Name: k.Name, State: state,
		CreatedAt: timestamp(k.Created), ExpiresAt: timestamp(k.Expires), RevokedAt: timestamp(k.Revoked),
		Revision: k.Revision, UpdatedAt: timestamp(k.Updated), Author: k.Author,
	}
}

// timestamp is nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func duration(field, text string, empty time.Duration) (time.Duration, error) {
	if text == "" {
		return empty, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errs.New(errs.InvalidArgument, "%s: %q is not a duration such as \"30m\" or \"720h\"", field, text)
	}
	return d, nil
}

func orDefault(namespace string) string {
	if namespace == "" {
		return "default"
	}
	return namespace
}
