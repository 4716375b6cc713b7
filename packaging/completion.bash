# Completion for restpipe and restpipe-ca: they say themselves what may follow.
_restpipe()
{
    local variable kind value
    case ${1##*/} in
        restpipe-ca) variable=_RESTPIPE_CA_COMPLETE ;;
        *) variable=_RESTPIPE_COMPLETE ;;
    esac
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" "$variable=bash_complete" "$1")
}
complete -o nosort -F _restpipe restpipe restpipe-ca
