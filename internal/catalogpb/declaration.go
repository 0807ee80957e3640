package catalogpb

import (
	"math"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
)

// DeclarationToProto converts a declaration; nil gives nil.
func DeclarationToProto(d *catalog.Declaration) *telfordv1.Declaration {
	if d == nil {
		return nil
	}
	return &telfordv1.Declaration{
		Service:            d.Service,
		Realm:              d.Realm,
		Version:            d.Version,
		CompatibleVersions: d.CompatibleVersions,
		Methods:            each(d.Methods, MethodToProto),
		Endpoints:          each(d.Endpoints, endpointToProto),
		Tags:               d.Tags,
		Metadata:           d.Metadata,
		Capabilities:       d.Capabilities,
		Menu:               each(d.Menu, menuToProto),
		Scope:              scopeToProto(d.Scope),
		Locality:           d.Locality,
		Weight:             toUint32(d.Weight),
		TtlUs:              int64(d.TTL / time.Microsecond),
		Dependencies:       each(d.Dependencies, dependencyToProto),
		Descriptors:        d.Descriptors,
		Status:             StatusToProto(d.Status),
		StatusMessage:      d.StatusMessage,
		Sdk:                d.SDK,
	}
}

// DeclarationFromProto is the reverse; nil gives nil. Unspecified enum values become
// empty words, which validation replaces by the default, and unknown numbers become
// words that it refuses.
func DeclarationFromProto(p *telfordv1.Declaration) *catalog.Declaration {
	if p == nil {
		return nil
	}
	return &catalog.Declaration{
		Service:            p.GetService(),
		Realm:              p.GetRealm(),
		Version:            p.GetVersion(),
		CompatibleVersions: p.GetCompatibleVersions(),
		Methods:            each(p.GetMethods(), MethodFromProto),
		Endpoints:          each(p.GetEndpoints(), endpointFromProto),
		Tags:               p.GetTags(),
		Metadata:           p.GetMetadata(),
		Capabilities:       p.GetCapabilities(),
		Menu:               each(p.GetMenu(), menuFromProto),
		Scope:              scopeFromProto(p.GetScope()),
		Locality:           p.GetLocality(),
		Weight:             fromUint32(p.GetWeight()),
		TTL:                duration(p.GetTtlUs()),
		Dependencies:       each(p.GetDependencies(), dependencyFromProto),
		Descriptors:        p.GetDescriptors(),
		Status:             StatusFromProto(p.GetStatus()),
		StatusMessage:      p.GetStatusMessage(),
		SDK:                p.GetSdk(),
	}
}

// StatusToProto converts a status; unknown words give UNSPECIFIED.
func StatusToProto(s catalog.Status) telfordv1.InstanceStatus {
	switch s {
	case catalog.OK:
		return telfordv1.InstanceStatus_INSTANCE_STATUS_OK
	case catalog.Warning:
		return telfordv1.InstanceStatus_INSTANCE_STATUS_WARNING
	case catalog.Error:
		return telfordv1.InstanceStatus_INSTANCE_STATUS_ERROR
	case catalog.Suspended:
		return telfordv1.InstanceStatus_INSTANCE_STATUS_SUSPENDED
	case catalog.Offline:
		return telfordv1.InstanceStatus_INSTANCE_STATUS_OFFLINE
	}
	return telfordv1.InstanceStatus_INSTANCE_STATUS_UNSPECIFIED
}

// StatusFromProto is the reverse: UNSPECIFIED gives the empty status, and a number
// that this version does not know gives a word that Known refuses.
func StatusFromProto(p telfordv1.InstanceStatus) catalog.Status {
	switch p {
	case telfordv1.InstanceStatus_INSTANCE_STATUS_UNSPECIFIED:
		return ""
	case telfordv1.InstanceStatus_INSTANCE_STATUS_OK:
		return catalog.OK
	case telfordv1.InstanceStatus_INSTANCE_STATUS_WARNING:
		return catalog.Warning
	case telfordv1.InstanceStatus_INSTANCE_STATUS_ERROR:
		return catalog.Error
	case telfordv1.InstanceStatus_INSTANCE_STATUS_SUSPENDED:
		return catalog.Suspended
	case telfordv1.InstanceStatus_INSTANCE_STATUS_OFFLINE:
		return catalog.Offline
	}
	return catalog.Status(p.String())
}

// KindToProto converts the kind of a method; unknown words give UNSPECIFIED.
func KindToProto(k catalog.Kind) telfordv1.MethodKind {
	switch k {
	case catalog.Unary:
		return telfordv1.MethodKind_METHOD_KIND_UNARY
	case catalog.ServerStream:
		return telfordv1.MethodKind_METHOD_KIND_SERVER_STREAM
	}
	return telfordv1.MethodKind_METHOD_KIND_UNSPECIFIED
}

// KindFromProto is the reverse, with unknown numbers as in StatusFromProto.
func KindFromProto(p telfordv1.MethodKind) catalog.Kind {
	switch p {
	case telfordv1.MethodKind_METHOD_KIND_UNSPECIFIED:
		return ""
	case telfordv1.MethodKind_METHOD_KIND_UNARY:
		return catalog.Unary
	case telfordv1.MethodKind_METHOD_KIND_SERVER_STREAM:
		return catalog.ServerStream
	}
	return catalog.Kind(p.String())
}

func scopeToProto(s catalog.Scope) telfordv1.Scope {
	switch s {
	case catalog.ScopeZone:
		return telfordv1.Scope_SCOPE_ZONE
	case catalog.ScopeGlobal:
		return telfordv1.Scope_SCOPE_GLOBAL
	}
	return telfordv1.Scope_SCOPE_UNSPECIFIED
}

func scopeFromProto(p telfordv1.Scope) catalog.Scope {
	switch p {
	case telfordv1.Scope_SCOPE_UNSPECIFIED:
		return ""
	case telfordv1.Scope_SCOPE_ZONE:
		return catalog.ScopeZone
	case telfordv1.Scope_SCOPE_GLOBAL:
		return catalog.ScopeGlobal
	}
	return catalog.Scope(p.String())
}

// MethodToProto converts a method.
func MethodToProto(m catalog.Method) *telfordv1.Method {
	return &telfordv1.Method{
		Name:          m.Name,
		Kind:          KindToProto(m.Kind),
		Contract:      m.Contract,
		ContentTypes:  m.ContentTypes,
		InputMessage:  m.InputMessage,
		OutputMessage: m.OutputMessage,
		InputSchema:   m.InputSchema,
		OutputSchema:  m.OutputSchema,
		Description:   m.Description,

		AllowedCallers: m.AllowedCallers,
		TimeoutUs:      m.Timeout.Microseconds(),
		NotRetryable:   m.NotRetryable,
		Limits:         each(m.Limits, LimitToProto),
	}
}

// MethodFromProto is the reverse; nil gives the zero value.
func MethodFromProto(p *telfordv1.Method) catalog.Method {
	return catalog.Method{
		Name:          p.GetName(),
		Kind:          KindFromProto(p.GetKind()),
		Contract:      p.GetContract(),
		ContentTypes:  p.GetContentTypes(),
		InputMessage:  p.GetInputMessage(),
		OutputMessage: p.GetOutputMessage(),
		InputSchema:   p.GetInputSchema(),
		OutputSchema:  p.GetOutputSchema(),
		Description:   p.GetDescription(),

		AllowedCallers: p.GetAllowedCallers(),
		Timeout:        time.Duration(p.GetTimeoutUs()) * time.Microsecond,
		NotRetryable:   p.GetNotRetryable(),
		Limits:         each(p.GetLimits(), LimitFromProto),
	}
}

// LimitToProto converts a limit.
func LimitToProto(l catalog.Limit) *telfordv1.Limit {
	return &telfordv1.Limit{
		Concurrency: toUint32(l.Concurrency), Queue: toUint32(l.Queue), Rate: l.Rate, Burst: toUint32(l.Burst),
		Key: l.Key, Scope: l.Scope,
	}
}

// LimitFromProto is the reverse; nil gives the zero value.
func LimitFromProto(p *telfordv1.Limit) catalog.Limit {
	return catalog.Limit{
		Concurrency: fromUint32(p.GetConcurrency()), Queue: fromUint32(p.GetQueue()), Rate: p.GetRate(), Burst: fromUint32(p.GetBurst()),
		Key: p.GetKey(), Scope: p.GetScope(),
	}
}

func endpointToProto(e catalog.Endpoint) *telfordv1.Endpoint {
	return &telfordv1.Endpoint{Kind: e.Kind, Host: e.Host, Port: toUint32(e.Port)}
}

func endpointFromProto(p *telfordv1.Endpoint) catalog.Endpoint {
	return catalog.Endpoint{Kind: p.GetKind(), Host: p.GetHost(), Port: fromUint32(p.GetPort())}
}

func menuToProto(m catalog.MenuItem) *telfordv1.MenuItem {
	return &telfordv1.MenuItem{
		Id:    m.ID,
		Label: m.Label,
		Kind:  m.Kind,
		Path:  m.Path,
		Icon:  m.Icon,
		Order: int32(min(max(m.Order, math.MinInt32), math.MaxInt32)),
		Roles: m.Roles,
	}
}

func menuFromProto(p *telfordv1.MenuItem) catalog.MenuItem {
	return catalog.MenuItem{
		ID:    p.GetId(),
		Label: p.GetLabel(),
		Kind:  p.GetKind(),
		Path:  p.GetPath(),
		Icon:  p.GetIcon(),
		Order: int(p.GetOrder()),
		Roles: p.GetRoles(),
	}
}

func dependencyToProto(d catalog.Dependency) *telfordv1.Dependency {
	return &telfordv1.Dependency{Kind: d.Kind, Target: d.Target, Names: d.Names}
}

func dependencyFromProto(p *telfordv1.Dependency) catalog.Dependency {
	return catalog.Dependency{Kind: p.GetKind(), Target: p.GetTarget(), Names: p.GetNames()}
}

func toUint32(n int) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

// fromUint32 clamps, so that a huge number stays a huge one where int has 32 bits.
func fromUint32(n uint32) int { return int(min(n, math.MaxInt32)) }
