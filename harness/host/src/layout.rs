//! Compares the interface of a plugin with ours and says in three lines how they differ.
//!
//! The check of abi_stable accepts a newer plugin in an older host. The normal case for third parties, an older plugin in a newer
//! host, is accepted by running the same check with the roles swapped: additions go to the end of prefix types, so whichever side
//! is shorter must be a prefix of the other. Its own report runs to 78,000 characters; it goes to the log.

use abi_stable::{
    abi_stability::abi_checking::{
        AbiInstability, AbiInstabilityError, AbiInstabilityErrors, CheckingGlobals,
        check_layout_compatibility_with_globals,
    },
    sabi_types::VersionStrings,
    type_layout::{TLFieldOrFunction, TypeLayout},
};

/// Whether versions can understand each other: the same major, or the same minor while the major is 0.
pub(crate) fn check_version(ours: VersionStrings, theirs: VersionStrings) -> Result<(), String> {
    let (Some(a), Some(b)) = (numbers(ours), numbers(theirs)) else {
        return Err(format!(
            "its interface version \"{theirs}\" cannot be read. {}",
            remedy(ours)
        ));
    };
    let understood = a.0 == b.0 && (a.0 != 0 || a.1 == b.1);
    if understood {
        return Ok(());
    }
    Err(format!(
        "it speaks version {theirs} of the plugin interface, this program speaks version {ours}. {}",
        remedy(ours)
    ))
}

fn numbers(version: VersionStrings) -> Option<(u64, u64)> {
    let text = version.version.as_str();
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

fn remedy(ours: VersionStrings) -> String {
    format!(
        "Build the plugin against equivbench-abi {ours}, or use the equivbench that it was built for"
    )
}

/// Whether the layouts agree, in either direction.
pub(crate) fn check_layout(
    ours: &'static TypeLayout,
    theirs: &'static TypeLayout,
    versions: (VersionStrings, VersionStrings),
) -> Result<(), String> {
    let Err(errors) = compare(ours, theirs) else {
        return Ok(());
    };
    if compare(theirs, ours).is_ok() {
        tracing::debug!(
            "the plugin was built with an older interface: {} instead of {}",
            versions.1,
            versions.0
        );
        return Ok(());
    }
    tracing::debug!("layout of the plugin:\n{errors}");
    Err(format!(
        "it speaks version {} of the plugin interface, this program speaks version {}, and the two do not fit:\n  {}\n{}",
        versions.1,
        versions.0,
        difference(&errors),
        remedy(versions.0)
    ))
}

/// One plugin's layouts must not be remembered when the next one is checked, hence the fresh globals.
fn compare(
    interface: &'static TypeLayout,
    implementation: &'static TypeLayout,
) -> Result<(), AbiInstabilityErrors> {
    check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new())
}

/// The most telling difference in one line: a field that moved says more than the sizes that follow from it.
fn difference(errors: &AbiInstabilityErrors) -> String {
    let all = errors
        .errors
        .iter()
        .flat_map(|at| at.errs.iter().map(move |what| (at, what)));
    match all.min_by_key(|(_, what)| rank(what)) {
        Some((at, what)) => format!("{}: {}", place(at, errors), sentence(what)),
        None => "the layouts differ".into(),
    }
}

fn rank(error: &AbiInstability) -> u8 {
    match error {
        AbiInstability::UnexpectedField(_) => 0,
        AbiInstability::FieldCountMismatch(_) | AbiInstability::MismatchedPrefixSize(_) => 1,
        AbiInstability::Size(_) | AbiInstability::Alignment(_) => 3,
        _ => 2,
    }
}

fn place(error: &AbiInstabilityError, errors: &AbiInstabilityErrors) -> String {
    match error.stack_trace.last().map(|step| step.expected) {
        // The fields of wrappers are numbered; their types say more.
        Some(TLFieldOrFunction::Field(field))
            if field.name().starts_with(|c: char| c.is_ascii_digit()) =>
        {
            format!("type \"{}\"", field.layout().name())
        }
        Some(TLFieldOrFunction::Field(field)) => {
            format!("\"{}\" of type \"{}\"", field.name(), field.layout().name())
        }
        Some(TLFieldOrFunction::Function(function)) => format!("function \"{}\"", function.name),
        None => format!("type \"{}\"", errors.interface.name()),
    }
}

fn sentence(error: &AbiInstability) -> String {
    use AbiInstability as E;
    match error {
        E::Size(e) => format!("{} bytes here, {} in the plugin", e.expected, e.found),
        E::Alignment(e) => format!(
            "aligned to {} bytes here, {} in the plugin",
            e.expected, e.found
        ),
        E::FieldCountMismatch(e) => {
            format!("{} fields here, {} in the plugin", e.expected, e.found)
        }
        E::MismatchedPrefixSize(e) => format!(
            "the first version has {} fields here, {} in the plugin",
            e.expected, e.found
        ),
        E::UnexpectedField(e) => format!(
            "field \"{}\" here, \"{}\" in the plugin",
            e.expected.name(),
            e.found.name()
        ),
        E::Package(e) => format!(
            "from package {} here, {} in the plugin",
            e.expected, e.found
        ),
        E::PackageVersion(e) => {
            format!("of version {} here, {} in the plugin", e.expected, e.found)
        }
        E::Name(e) => format!("the type is {} here, {} in the plugin", e.expected, e.found),
        _ => "its layout differs (run with -v -v for the whole report)".into(),
    }
}
