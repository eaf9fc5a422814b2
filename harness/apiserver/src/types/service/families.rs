//! IP families and ClusterIPs: `ipFamilyPolicy`, `ipFamilies`, `clusterIPs` and how they follow from each other (KEP-563).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::{Value, json};

use super::super::{AllocationError, Cause, Family, ServiceAllocators};
use super::transaction::Transaction;
use super::validate::cluster_ip_fields;
use super::{
    NONE, cluster_ips, ip_families, is_headless, needs_cluster_ip, parse_address, says_none,
    service_type,
};

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Completes `ipFamilyPolicy` and `ipFamilies` and checks that the cluster has the families (`initIPFamilyFields`).
pub(super) fn init(
    allocators: &ServiceAllocators,
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
) -> Result<(), Vec<Cause>> {
    if !needs_cluster_ip(spec) || old.is_some_and(|old| is_settled(spec, old)) {
        return Ok(());
    }
    let selectorless_headless = says_none(spec) && spec.selector.is_none();
    let policy = match (
        &spec.ip_family_policy,
        old.and_then(|old| old.ip_family_policy.as_ref()),
    ) {
        (Some(policy), _) | (None, Some(policy)) => policy.clone(),
        // Nobody knows which families the endpoints of such a Service will have.
        (None, None) if selectorless_headless => REQUIRE.to_owned(),
        (None, None) => SINGLE.to_owned(),
    };
    spec.ip_family_policy = Some(policy.clone());

    let causes = cluster_ip_fields(spec, old);
    if !causes.is_empty() {
        return Err(causes);
    }
    let mut causes = Vec::new();
    let mut wrong_policy = |detail: &str| {
        causes.push(Cause::invalid(
            "spec.ipFamilyPolicy",
            &json!(policy),
            detail,
        ));
    };
    if let Some(old) = old {
        if policy == SINGLE {
            // The policy alone says that the second address and family are to go; the first ones cannot change.
            if cluster_ips(old) == cluster_ips(spec)
                && let Some(addresses) = &mut spec.cluster_ips
            {
                addresses.truncate(1);
            }
            if ip_families(old) == ip_families(spec)
                && let Some(families) = &mut spec.ip_families
            {
                families.truncate(1);
            }
        } else {
            let reduced = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
            if reduced(cluster_ips(spec), cluster_ips(old)) {
                wrong_policy("must be 'SingleStack' to release the secondary cluster IP");
            }
            if reduced(ip_families(spec), ip_families(old)) {
                wrong_policy("must be 'SingleStack' to release the secondary IP family");
            }
        }
    }
    if policy == SINGLE {
        if cluster_ips(spec).len() == 2 {
            wrong_policy(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
            );
        }
        if ip_families(spec).len() == 2 {
            wrong_policy(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
            );
        }
    }
    infer_from_addresses(allocators, spec, &mut causes);
    if !causes.is_empty() {
        return Err(causes);
    }

    if selectorless_headless {
        // Any family is allowed here, even one that the cluster does not have.
        let families = spec
            .ip_families
            .get_or_insert_with(|| vec![allocators.primary_family().name().to_owned()]);
        if policy != SINGLE {
            add_other_family(families);
        }
        return Ok(());
    }
    let dual_cluster = allocators.has_family(Family::V4) && allocators.has_family(Family::V6);
    if policy == REQUIRE && !dual_cluster {
        let text = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid("spec.ipFamilyPolicy", &json!(policy), text));
    }
    for (i, name) in ip_families(spec).iter().enumerate() {
        if !Family::parse(name).is_some_and(|family| allocators.has_family(family)) {
            let field = format!("spec.ipFamilies[{i}]");
            causes.push(Cause::invalid(
                field,
                &json!(name),
                "not configured on this cluster",
            ));
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    let families = spec
        .ip_families
        .get_or_insert_with(|| vec![allocators.primary_family().name().to_owned()]);
    if policy != SINGLE && dual_cluster {
        add_other_family(families);
    }
    Ok(())
}

/// Adds the families of addresses that were given without one.
fn infer_from_addresses(
    allocators: &ServiceAllocators,
    spec: &mut ServiceSpec,
    causes: &mut Vec<Cause>,
) {
    for (i, address) in cluster_ips(spec).to_vec().iter().enumerate() {
        if address == NONE {
            break;
        }
        let Some(family) = parse_address(address).map(Family::of) else {
            continue;
        };
        if i < ip_families(spec).len() {
            continue;
        }
        if allocators.has_family(family) {
            spec.ip_families
                .get_or_insert_default()
                .push(family.name().to_owned());
        } else {
            let text = format!("{} is not configured on this cluster", family.name());
            causes.push(Cause::invalid(
                format!("spec.clusterIPs[{i}]"),
                &json!(spec.cluster_ips),
                text,
            ));
        }
    }
}

fn add_other_family(families: &mut Vec<String>) {
    if let [only] = families.as_slice()
        && let Some(family) = Family::parse(only)
    {
        families.push(family.other().name().to_owned());
    }
}

/// Whether the update leaves a `PreferDualStack` Service alone: such a Service is neither upgraded nor downgraded because the cluster changed.
fn is_settled(new: &ServiceSpec, old: &ServiceSpec) -> bool {
    let prefers = |spec: &ServiceSpec| spec.ip_family_policy.as_deref() == Some(PREFER);
    service_type(new) == service_type(old)
        && prefers(new)
        && (prefers(old) || old.ip_family_policy.is_none())
        && cluster_ips(new) == cluster_ips(old)
        && ip_families(new) == ip_families(old)
}

/// Gives a new Service an address of each of its families.
pub(super) fn allocate_all(
    transaction: &mut Transaction<'_>,
    spec: &mut ServiceSpec,
) -> Result<(), Vec<Cause>> {
    if !needs_cluster_ip(spec) || cluster_ips(spec).first().is_some_and(|first| first == NONE) {
        return Ok(());
    }
    for i in 0..ip_families(spec).len() {
        allocate(transaction, spec, i)?;
    }
    Ok(())
}

/// Gives back and takes what the change of families and type asks for.
pub(super) fn update(
    transaction: &mut Transaction<'_>,
    spec: &mut ServiceSpec,
    old: &ServiceSpec,
) -> Result<(), Vec<Cause>> {
    if is_settled(spec, old) {
        return Ok(());
    }
    if !needs_cluster_ip(old) && needs_cluster_ip(spec) {
        return allocate_all(transaction, spec);
    }
    if cluster_ips(old).first().is_some_and(|first| first == NONE) {
        return Ok(());
    }
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        for address in held_addresses(old) {
            transaction.give_up_address(address);
        }
        return Ok(());
    }
    match (ip_families(old).len(), ip_families(spec).len()) {
        (1, 2) => allocate(transaction, spec, 1),
        (2, 1) => {
            if let Some(address) = cluster_ips(old).get(1).and_then(|text| parse_address(text)) {
                transaction.give_up_address(address);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Takes the address of the i-th family: the one given at that place, or a free one.
fn allocate(
    transaction: &mut Transaction<'_>,
    spec: &mut ServiceSpec,
    i: usize,
) -> Result<(), Vec<Cause>> {
    let given: Value = json!(spec.cluster_ips);
    let invalid = |text: String| vec![Cause::invalid("spec.clusterIPs", &given, text)];
    let Some(family) = Family::parse(&ip_families(spec)[i]) else {
        return Err(invalid("the family is unknown".to_owned()));
    };
    let wanted = cluster_ips(spec).get(i).cloned();
    let address = match &wanted {
        Some(text) => {
            let parsed = parse_address(text);
            transaction
                .take_address(family, parsed)
                .map_err(|error| invalid(format!("failed to allocate IP {text}: {error}")))?
        }
        None => transaction
            .take_address(family, None)
            .map_err(|error| match error {
                AllocationError::Full => vec![Cause::internal(
                    "spec.clusterIPs",
                    "failed to allocate a serviceIP: range is full",
                )],
                error => invalid(format!("failed to allocate IP: {error}")),
            })?,
    };
    if wanted.is_none() {
        let addresses = spec.cluster_ips.get_or_insert_default();
        addresses.push(address.to_string());
        if i == 0 {
            spec.cluster_ip = Some(address.to_string());
        }
    }
    Ok(())
}

/// The ClusterIPs a Service holds.
pub(super) fn held_addresses(spec: &ServiceSpec) -> Vec<IpAddr> {
    if !needs_cluster_ip(spec) || is_headless(spec) {
        return Vec::new();
    }
    cluster_ips(spec)
        .iter()
        .filter_map(|text| parse_address(text))
        .collect()
}
