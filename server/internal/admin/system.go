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
	info := s.api.cfg.Info()
	info.Alarms = s.alarms()
	return info, nil
}

func (s *system) ListAlarms(context.Context, *adminv1.ListAlarmsRequest) (*adminv1.ListAlarmsResponse, error) {
	return &adminv1.ListAlarmsResponse{Items: s.alarms()}, nil
}

func (s *system) alarms() (out []*adminv1.Alarm) {
	for _, a := range s.api.cfg.Alarms.List() {
		out = append(out, &adminv1.Alarm{
			Code: a.Code, Severity: string(a.Severity), Message: a.Message, Since: timestamp(a.Since),
		})
	}
	return out
}
