package publisher

import "github.com/rollcall-events/rollcall/schemas"

// A Need is a subject that rollcall must be allowed to publish on, as one example of its kind.
type Need struct {
	Subject string // without wildcards
	Allow   string // what a permission that covers all of the kind says
	Stream  string // set where the subject is stored: in the stream of that name
}

// Needs are the subjects that a tenant's publisher publishes on, those that create stream and
// bucket only if manage.
func Needs(tenant int64, manage bool) []Need {
	const name = consumerPrefix + "check"
	lease := leaseSubject(tenant)
	needs := []Need{
		{publishSubject(schemas.WatermarkSubject(tenant)), taken, schemas.Stream},
		{lease, "$KV." + schemas.Bucket + ".>", BucketStream},
	}
	api := func(subject, allow string) {
		needs = append(needs, Need{Subject: "$JS.API." + subject, Allow: "$JS.API." + allow})
	}
	for _, s := range []string{schemas.Stream, BucketStream} {
		api("STREAM.INFO."+s, "STREAM.INFO."+s)
		api("STREAM.MSG.GET."+s, "STREAM.MSG.GET."+s)
		api("CONSUMER.CREATE."+s+"."+name+".x", "CONSUMER.CREATE."+s+".>")
		api("CONSUMER.DELETE."+s+"."+name, "CONSUMER.DELETE."+s+".*")
		if manage {
			api("STREAM.CREATE."+s, "STREAM.CREATE."+s)
		}
	}
	if manage { // the client looks whether the server knows limit markers
		api("INFO", "INFO")
	}
	api("CONSUMER.MSG.NEXT."+schemas.Stream+"."+name, "CONSUMER.MSG.NEXT."+schemas.Stream+".*")
	api("DIRECT.GET."+BucketStream+"."+lease, "DIRECT.GET."+BucketStream+".>")
	return needs
}

// AlarmNeeds are the subjects that a tenant's [Alarm] publishes on, the one that creates its stream
// only if manage. Without them there is no alarm, and all else works.
func AlarmNeeds(tenant int64, manage bool) []Need {
	const info, create = "$JS.API.STREAM.INFO.", "$JS.API.STREAM.CREATE."
	armed := Need{schemas.AlarmArmedSubject(tenant), schemas.AlarmPrefix + "armed.*",
		schemas.AlarmStream}
	needs := []Need{armed, {Subject: info + schemas.AlarmStream, Allow: info + schemas.AlarmStream}}
	if manage {
		needs = append(needs,
			Need{Subject: create + schemas.AlarmStream, Allow: create + schemas.AlarmStream})
	}
	return needs
}
