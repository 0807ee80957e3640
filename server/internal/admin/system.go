package admin

import (
	"context"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

// system implements telford.admin.v1.System.
type system struct {
	adminv1.UnimplementedSystemServer
	api *API
}

func (s *system) GetVersion(context.Context, *adminv1.GetVersionRequest) (*adminv1.Version, error) {
	return s.api.cfg.Info().GetVersion(), nil
}

func (s *system) GetInfo(context.Context, *adminv1.GetInfoRequest) (*adminv1.Info, error) {
	return s.api.cfg.Info(), nil
}
